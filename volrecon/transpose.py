"""A volume with its axes in another order, made block by block in any memory tier."""

from volrecon.volume import Readable, Space, Volume


def transposed(source: Readable, axes: tuple[int, int, int], space: Space) -> Volume:
    """A copy of which axis n is axis `axes[n]` of the source, as by numpy.transpose; `axes[0]` is 1 or 2.

    Each block of the source is read once and cut into the pieces that go into different blocks of the result; the
    pieces of one block wait together in a volume of their own. Memory: a block of the source and one of the result;
    in `space`, the size of the source besides the result.
    """
    shape = (source.shape[axes[0]], source.shape[axes[1]], source.shape[axes[2]])
    ends = list(space.blocks(shape))
    cuts = [[n if axis != axes[0] else stop - start for axis, n in enumerate(source.shape)] for start, stop in ends]
    pieces = [space.empty(tuple(cut)) for cut in cuts]
    for z, above in space.blocks(source.shape):
        block = source.read(z, above)
        for (start, stop), piece in zip(ends, pieces, strict=True):
            piece.write(z, block.narrow(axes[0], start, stop - start))
    out = space.empty(shape)
    for (start, _), piece in zip(ends, pieces, strict=True):
        out.write(start, piece.read(0, source.shape[0]).permute(axes))
        piece.release()
    return out
