// Patches put back into slices: each pixel adds up the patches that hold it. Contract: README.md.
// No includes, no shared memory, no atomics; the order of the sum is fixed, patch after patch.

typedef long long Index;

// Each thread writes ROWS pixels of a column, so that their loads are under way together.
constexpr int ROWS = 4;

// Four blocks a multiprocessor: without the bound it takes registers for three.
extern "C" __global__ void __launch_bounds__(256, 4) patch_blend(
    float* __restrict__ slices, const float* __restrict__ patches, const int* __restrict__ down_starts,
    const int* __restrict__ across_starts, const int* __restrict__ down_covering,
    const int* __restrict__ across_covering, const float* __restrict__ down_weights,
    const float* __restrict__ across_weights, int rows, int columns, int down_side, int across_side, int across_count,
    int slice_count) {
    int x = blockIdx.y * blockDim.x + threadIdx.x;
    if (x >= columns) return;
    int slice = blockIdx.x, top = blockIdx.z * (ROWS * blockDim.y) + threadIdx.y;
    float sums[ROWS];
    int first[ROWS], deep[ROWS], deepest = 0;
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
        int y = top + k * (int)blockDim.y;
        bool held = y < rows;
        sums[k] = 0.0f;
        first[k] = held ? down_covering[2 * y] : 0;
        deep[k] = held ? down_covering[2 * y + 1] - first[k] : 0;
        deepest = deep[k] > deepest ? deep[k] : deepest;
    }
    int b_first = across_covering[2 * x], b_stop = across_covering[2 * x + 1];
    for (int n = 0; n < deepest; ++n) {
        for (int b = b_first; b < b_stop; ++b) {
            int j = x - across_starts[b];
            float across = across_weights[(Index)b * across_side + j], values[ROWS], weights[ROWS];
#pragma unroll
            for (int k = 0; k < ROWS; ++k) {
                weights[k] = values[k] = 0.0f;
                if (n >= deep[k]) continue;
                int a = first[k] + n, i = top + k * (int)blockDim.y - down_starts[a];
                weights[k] = down_weights[(Index)a * down_side + i] * across;
                // What is stitched over may be anything, even NaN.
                if (weights[k] != 0.0f) {
                    Index plane = ((Index)a * across_count + b) * slice_count + slice;
                    values[k] = patches[(plane * down_side + i) * across_side + j];
                }
            }
#pragma unroll
            for (int k = 0; k < ROWS; ++k) sums[k] += weights[k] * values[k];
        }
    }
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
        int y = top + k * (int)blockDim.y;
        if (y < rows) slices[((Index)slice * rows + y) * columns + x] = sums[k];
    }
}
