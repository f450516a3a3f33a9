// Runs recorded launches, every array in memory of exactly its size: to be built with sanitizers.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

int launch_by_name(
    const std::string& name, const unsigned* grid, const unsigned* block, const char* kinds, void** arguments);

static bool get(void* to, std::size_t bytes, FILE* file) { return std::fread(to, 1, bytes, file) == bytes; }

static std::string get_text(FILE* file) {
    unsigned length = 0;
    get(&length, sizeof length, file);
    std::string text(length, ' ');
    get(text.data(), length, file);
    return text;
}

int main(int, char** given) {
    FILE* file = std::fopen(given[1], "rb");
    int launches = 0;
    for (unsigned sizes[6]; get(sizes, sizeof sizes, file); ++launches) {
        std::string name = get_text(file), kinds = get_text(file);
        std::vector<void*> memory, arguments;
        std::vector<void*> pointers(kinds.size());
        for (std::size_t n = 0; n < kinds.size(); ++n) {
            unsigned long long bytes = 0;
            get(&bytes, sizeof bytes, file);
            memory.push_back(std::malloc(bytes));
            if (!get(memory.back(), bytes, file)) return 2;
            pointers[n] = memory.back();
            arguments.push_back(kinds[n] == 'P' ? &pointers[n] : memory.back());
        }
        if (launch_by_name(name, sizes, sizes + 3, kinds.c_str(), arguments.data())) return 3;
        for (void* one : memory) std::free(one);
    }
    std::fclose(file);
    std::printf("%d launches\n", launches);
}
