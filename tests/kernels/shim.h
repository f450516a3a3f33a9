// Enough of CUDA C++ to run the kernels of kernels/ on the CPU: a loop over blocks, and in it a loop over threads.
// Kernels that use shared memory, barriers or warps are beyond it.
#pragma once

#include <cmath>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
};
inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

inline unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline void sincospif(float x, float* sine, float* cosine) {
    *sine = (float)std::sin(M_PI * x);
    *cosine = (float)std::cos(M_PI * x);
}

// What an argument is, in the letters of numpy's dtype.char; P for pointers.
template <class T> constexpr char kind_of = 0;
template <class T> constexpr char kind_of<T*> = 'P';
template <> inline constexpr char kind_of<int> = 'i';
template <> inline constexpr char kind_of<unsigned> = 'I';
template <> inline constexpr char kind_of<float> = 'f';
template <> inline constexpr char kind_of<long long> = 'l';

template <class... A, std::size_t... n>
void run_blocks(
    void (*kernel)(A...), const unsigned* grid, const unsigned* block, void** arguments, std::index_sequence<n...>) {
    const long long blocks = (long long)grid[0] * grid[1] * grid[2];
#pragma omp parallel for schedule(static)
    for (long long b = 0; b < blocks; ++b) {
        gridDim = {grid[0], grid[1], grid[2]};
        blockDim = {block[0], block[1], block[2]};
        blockIdx = {unsigned(b % grid[0]), unsigned(b / grid[0] % grid[1]), unsigned(b / grid[0] / grid[1])};
        for (unsigned z = 0; z < block[2]; ++z)
            for (unsigned y = 0; y < block[1]; ++y)
                for (unsigned x = 0; x < block[0]; ++x) {
                    threadIdx = {x, y, z};
                    kernel(*(A*)arguments[n]...);
                }
    }
}

// 0, or 1 where the arguments are not those of the kernel: CUDA would not notice.
template <class... A>
int launch(
    void (*kernel)(A...), const unsigned* grid, const unsigned* block, const char* kinds, void** arguments) {
    const char own[] = {kind_of<A>..., 0};
    if (std::strcmp(own, kinds)) return 1;
    run_blocks(kernel, grid, block, arguments, std::index_sequence_for<A...>{});
    return 0;
}
