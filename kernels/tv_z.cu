// Total variation along z in ADMM: difference, shrinkage and dual update in one pass, and the transposed difference.
// Contract: README.md. No includes, no shared memory, no atomics: one thread writes what no other writes.

typedef long long Index;

// Each thread's voxels, a block apart, so that their loads are under way together.
constexpr int VOXELS = 4;

// d = soft(s, t) and u' = clip(s, -t, t) of s = Dz x + u, so that d + u' = s.
extern "C" __global__ void tv_z_split(
    float* __restrict__ d, float* __restrict__ dual, const float* __restrict__ x, const float* __restrict__ u,
    Index voxels, Index plane, Index differences, float per_spacing, float threshold) {
    Index first = (Index)blockIdx.x * (VOXELS * blockDim.x) + threadIdx.x;
    float s[VOXELS];
#pragma unroll
    for (int k = 0; k < VOXELS; ++k) {
        Index at = first + k * (Index)blockDim.x;
        s[k] = at < voxels ? u[at] : 0.0f;
        if (at < differences) s[k] += per_spacing * (x[at + plane] - x[at]);
    }
#pragma unroll
    for (int k = 0; k < VOXELS; ++k) {
        Index at = first + k * (Index)blockDim.x;
        if (at >= voxels) continue;
        // Comparisons, not fminf and fmaxf, which would turn NaN into a number.
        float clipped = s[k] > threshold ? threshold : s[k] < -threshold ? -threshold : s[k];
        dual[at] = clipped;
        d[at] = s[k] - clipped;
    }
}

// Dz'(d - u).
extern "C" __global__ void tv_z_transpose(
    float* __restrict__ out, const float* __restrict__ d, const float* __restrict__ u, Index voxels, Index plane,
    Index below, Index differences, float per_spacing) {
    Index first = (Index)blockIdx.x * (VOXELS * blockDim.x) + threadIdx.x;
    float values[VOXELS];
#pragma unroll
    for (int k = 0; k < VOXELS; ++k) {
        Index at = first + k * (Index)blockDim.x, own = at + below, lower = own - plane;
        values[k] = 0.0f;
        if (at < voxels && lower >= 0) values[k] = d[lower] - u[lower];
        if (at < voxels && own < differences) values[k] -= d[own] - u[own];
    }
#pragma unroll
    for (int k = 0; k < VOXELS; ++k) {
        Index at = first + k * (Index)blockDim.x;
        if (at < voxels) out[at] = per_spacing * values[k];
    }
}
