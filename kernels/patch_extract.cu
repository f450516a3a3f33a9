// Patches cut out of slices: the zero border, the input scaling and the position channels in one pass.
// Contract: README.md. No includes, no shared memory, no atomics: one thread writes what no other writes.

typedef long long Index;

// Each thread writes ROWS pixels of a column, so that their loads are under way together.
constexpr int ROWS = 4;

struct Half {
    unsigned short bits;
};
struct Bfloat {
    unsigned short bits;
};

__device__ inline void store(float* out, float value) { *out = value; }

// Round to nearest, ties to even; NaN stays NaN.
__device__ inline void store(Bfloat* out, float value) {
    unsigned bits = __float_as_uint(value);
    bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    out->bits = nan ? 0x7fc0 : (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

#ifdef __CUDA_ARCH__
__device__ inline void store(Half* out, float value) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out->bits) : "f"(value));
}
#else
// What the instruction does, by integers.
inline void store(Half* out, float value) {
    unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu, half;
    if (size > 0x7f800000u) {
        half = 0x7fff;
    } else if (size >= 0x477ff000u) {  // 65520, halfway from the largest half to the next power of two
        half = 0x7c00;
    } else if (size >= 0x38800000u) {  // 2^-14, the smallest normal half
        half = (size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13;
    } else if (size > 0x33000000u) {  // 2^-25, halfway from 0 to the smallest half
        unsigned shift = 126 - (size >> 23), whole = (size & 0x7fffffu) | 0x800000u;
        half = (whole + (1u << (shift - 1)) - 1 + (whole >> shift & 1u)) >> shift;
    } else {
        half = 0;
    }
    out->bits = (unsigned short)(sign | half);
}
#endif

template <class Out>
__device__ inline void patch_extract(
    Out* __restrict__ out, const float* __restrict__ slices, const int* __restrict__ down_starts,
    const int* __restrict__ across_starts, const float* __restrict__ down_positions,
    const float* __restrict__ across_positions, int rows, int columns, int down_margin, int across_margin,
    int down_side, int across_side, int across_count, int first, int slice_count, int channels, float scale,
    float offset) {
    int plane = blockIdx.x, patch = plane / channels, channel = plane - patch * channels;
    int j = blockIdx.y * blockDim.x + threadIdx.x;
    if (j >= across_side) return;
    int a = (first + patch) / across_count, b = (first + patch) - a * across_count;
    int top = blockIdx.z * (ROWS * blockDim.y) + threadIdx.y;
    int y = down_starts[a] + top, x = across_starts[b] + j;
    float values[ROWS];
    if (channel < slice_count) {
        const float* column = slices + (Index)channel * rows * columns + x;
        bool within = x >= 0 && x < columns;
#pragma unroll
        for (int k = 0; k < ROWS; ++k) {
            int at = y + k * (int)blockDim.y;
            bool held = within && top + k * (int)blockDim.y < down_side && at >= 0 && at < rows;
            values[k] = held ? column[(Index)at * columns] : 0.0f;
        }
#pragma unroll
        for (int k = 0; k < ROWS; ++k) values[k] = scale * values[k] + offset;
    } else {
        bool downwards = channel == slice_count;
        float own = across_positions[x + across_margin];
#pragma unroll
        for (int k = 0; k < ROWS; ++k) {
            bool held = downwards && top + k * (int)blockDim.y < down_side;
            values[k] = held ? down_positions[y + k * (int)blockDim.y + down_margin] : own;
        }
    }
    Out* target = out + (Index)plane * down_side * across_side + j;
#pragma unroll
    for (int k = 0; k < ROWS; ++k) {
        int i = top + k * (int)blockDim.y;
        if (i < down_side) store(target + (Index)i * across_side, values[k]);
    }
}

#define PATCH_EXTRACT(name, Out)                                                                                      \
    extern "C" __global__ void name(                                                                                  \
        Out* out, const float* slices, const int* down_starts, const int* across_starts, const float* down_positions, \
        const float* across_positions, int rows, int columns, int down_margin, int across_margin, int down_side,      \
        int across_side, int across_count, int first, int slice_count, int channels, float scale, float offset) {     \
        patch_extract(                                                                                                \
            out, slices, down_starts, across_starts, down_positions, across_positions, rows, columns, down_margin,    \
            across_margin, down_side, across_side, across_count, first, slice_count, channels, scale, offset);        \
    }

PATCH_EXTRACT(patch_extract_float32, float)
PATCH_EXTRACT(patch_extract_float16, Half)
PATCH_EXTRACT(patch_extract_bfloat16, Bfloat)
