"""volrecon"""
