// The DDIM update with the noise of volrecon.sampling made on the way: Philox4x32-10 (Salmon et al. 2011), Box-Muller.
// Contract: README.md. The integers are those of the CPU bit for bit; normal numbers differ by rounding.

typedef long long Index;
typedef unsigned int Word;

struct Words {
    Word w[4];
};

struct alignas(16) Quad {
    float v[4];
};

__device__ inline Words philox(Word c0, Word c1, Word c2, Word c3, Word k0, Word k1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        unsigned long long a = 0xD2511F53ull * c0, b = 0xCD9E8D57ull * c2;
        c0 = (Word)(b >> 32) ^ c1 ^ k0;
        c1 = (Word)b;
        c2 = (Word)(a >> 32) ^ c3 ^ k1;
        c3 = (Word)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// sqrt(-2 ln u) (cos, sin)(2 pi v) of u, v = (word + 1/2) / 2^32. Near 1 a float cannot hold u, but it can hold 1 - u;
// 2 pi v is taken from -pi to pi, where a float holds it best.
__device__ inline void box_muller(Word word, Word turn, float* cosine, float* sine) {
    float log_u = word < 0x80000000u ? logf(((float)word + 0.5f) * 0x1p-32f)
                                     : log1pf(-((float)~word + 0.5f) * 0x1p-32f);
    float radius = sqrtf(-2.0f * log_u), s, c;
    sincospif(((float)(int)turn + 0.5f) * 0x1p-31f, &s, &c);
    *cosine = radius * c;
    *sine = radius * s;
}

// The raw integers (slices, quads, 4): for tests.
extern "C" __global__ void philox_words(
    Word* __restrict__ out, Index quads, Word first_slice, Word step, Word purpose, Word k0, Word k1) {
    Index quad = (Index)blockIdx.x * blockDim.x + threadIdx.x;
    if (quad >= quads) return;
    Words words = philox((Word)quad, first_slice + blockIdx.y, step, purpose, k0, k1);
    for (int lane = 0; lane < 4; ++lane) out[((Index)blockIdx.y * quads + quad) * 4 + lane] = words.w[lane];
}

__device__ inline float step_of(float x, float x0, float noise, float kept, float fresh) {
    return x0 + kept * (x - x0) + fresh * noise;
}

// x' = x0 + kept (x - x0) + fresh noise; one thread a quad of voxels, one counter a quad.
extern "C" __global__ void renoise(
    float* __restrict__ out, const float* __restrict__ x, const float* __restrict__ x0, Index plane, Index quads,
    int aligned, float kept, float fresh, Word first_slice, Word step, Word purpose, Word k0, Word k1) {
    Index quad = (Index)blockIdx.x * blockDim.x + threadIdx.x;
    if (quad >= quads) return;
    Words words = philox((Word)quad, first_slice + blockIdx.y, step, purpose, k0, k1);
    float noise[4];
    box_muller(words.w[0], words.w[1], noise, noise + 1);
    box_muller(words.w[2], words.w[3], noise + 2, noise + 3);
    Index start = (Index)blockIdx.y * plane + 4 * quad;
    if (aligned) {
        Quad dirty = *(const Quad*)(x + start), clean = *(const Quad*)(x0 + start), following;
#pragma unroll
        for (int k = 0; k < 4; ++k) following.v[k] = step_of(dirty.v[k], clean.v[k], noise[k], kept, fresh);
        *(Quad*)(out + start) = following;
    } else {
        for (int k = 0; k < 4 && 4 * quad + k < plane; ++k)
            out[start + k] = step_of(x[start + k], x0[start + k], noise[k], kept, fresh);
    }
}
