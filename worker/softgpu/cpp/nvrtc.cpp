// A libnvrtc for tests: compiles the source it is given with g++, for the host.
//
// A "cubin" is the path of a shared object, named by the hash of everything it is made from, so that
// each source is compiled once on a machine for each kind of GPU. They lie in a folder beside the one
// where this library and shim.h are.
//
//     HW2_SOFTGPU_CXXFLAGS  more flags for g++
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <limits.h>
#include <sstream>
#include <string>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "launch.h"
#include "soft.h"
#include "source.h"

namespace {

enum Result { SUCCESS = 0, INVALID_INPUT = 3, INVALID_PROGRAM = 4, INVALID_OPTION = 5, COMPILATION = 6, INTERNAL = 11 };

// Those of CUDA 11.8.
constexpr int ARCHS[] = {35, 37, 50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90};

constexpr char FLAGS[] = "-std=c++17 -O2 -ftree-vectorize -fPIC -shared -ffp-contract=off -fno-strict-aliasing "
                         "-fvisibility=hidden -Wall -Wno-unused-function -Wno-unused-variable -Wno-unknown-pragmas ";
#if defined(__SANITIZE_ADDRESS__)
constexpr char SANITIZER[] = "-g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all "
                             "-fsanitize-sections=hw2_shared ";
#else
constexpr char SANITIZER[] = "";
#endif

struct Program { std::string source, name, log, cubin; };

// Where this library lies, not where a link to it does.
std::string directory() {
    Dl_info info;
    static const int here = 0;
    char real[PATH_MAX];
    if (!dladdr(&here, &info) || !realpath(info.dli_fname, real)) return ".";
    std::string path = real;
    return path.substr(0, path.rfind('/'));
}

std::string contents(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::stringstream all;
    all << file.rdbuf();
    return all.str();
}

// FNV-1a.
std::string hash(const std::string& text) {
    uint64_t value = 14695981039346656037u;
    for (unsigned char c : text) value = (value ^ c) * 1099511628211u;
    char hex[17];
    snprintf(hex, sizeof hex, "%016lx", value);
    return hex;
}

bool exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

// Has g++ make `path`.so; what it says is in `path`.log.
bool run_compiler(const std::string& source, const std::string& path, const std::string& flags) {
    std::ofstream(path + ".cpp") << source;
    // A sanitizer that is preloaded is not for the compiler.
    std::string command = "LD_PRELOAD= g++ " + flags + " -I'" + directory() + "' -o '" + path + ".new' '" + path +
                          ".cpp' 2> '" + path + ".log'";
    return system(command.c_str()) == 0 && rename((path + ".new").c_str(), (path + ".so").c_str()) == 0;
}

Result compile(Program& program, int arch) {
    std::string source = source::for_host(program.source, program.name, arch), here = directory(), parts = source;
    for (const char* header : {"/shim.h", "/fibers.h", "/launch.h"}) parts += contents(here + header);
    const char* extra = getenv("HW2_SOFTGPU_CXXFLAGS");
    std::string flags = std::string(FLAGS) + SANITIZER + (extra ? extra : ""), folder = here + "/../kernels";
    mkdir(folder.c_str(), 0755);
    std::string path = folder + "/" + hash(parts + flags);
    int lock = open((path + ".lock").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    if (lock < 0 || flock(lock, LOCK_EX) != 0) {
        program.log = "cannot lock " + path + ".lock\n";
        return INTERNAL;
    }
    bool good = exists(path + ".so") || run_compiler(source, path, flags);
    program.log = contents(path + ".log");
    close(lock);
    if (!good) return COMPILATION;
    program.cubin = SOFT_CUBIN + std::to_string(arch) + " " + path + ".so";
    program.cubin += '\0';
    return SUCCESS;
}

}  // namespace

EXPORT const char* nvrtcGetErrorString(Result result) {
    switch (result) {
        case SUCCESS: return "NVRTC_SUCCESS";
        case INVALID_INPUT: return "NVRTC_ERROR_INVALID_INPUT";
        case INVALID_PROGRAM: return "NVRTC_ERROR_INVALID_PROGRAM";
        case INVALID_OPTION: return "NVRTC_ERROR_INVALID_OPTION";
        case COMPILATION: return "NVRTC_ERROR_COMPILATION";
        case INTERNAL: return "NVRTC_ERROR_INTERNAL_ERROR";
    }
    return "NVRTC_ERROR unknown";
}

EXPORT Result nvrtcVersion(int* major, int* minor) {
    *major = 11, *minor = 8;
    return SUCCESS;
}

EXPORT Result nvrtcGetNumSupportedArchs(int* count) {
    *count = std::size(ARCHS);
    return SUCCESS;
}

EXPORT Result nvrtcGetSupportedArchs(int* archs) {
    std::copy(std::begin(ARCHS), std::end(ARCHS), archs);
    return SUCCESS;
}

EXPORT Result nvrtcCreateProgram(Program** program, const char* source, const char* name, int headers,
                                 const char* const*, const char* const*) {
    if (!program || !source || headers != 0) return INVALID_INPUT;
    *program = new Program{source, name ? name : "default_program", "", ""};
    return SUCCESS;
}

EXPORT Result nvrtcDestroyProgram(Program** program) {
    delete *program;
    *program = nullptr;
    return SUCCESS;
}

EXPORT Result nvrtcCompileProgram(Program* program, int count, const char* const* options) {
    int arch = 0;
    for (int i = 0; i < count; i++) {
        std::string option = options[i];
        if (sscanf(options[i], "--gpu-architecture=sm_%d", &arch) == 1) continue;
        if (option != "--std=c++14" && option != "--extra-device-vectorization") {
            program->log = "unknown option " + option + "\n";
            return INVALID_OPTION;
        }
    }
    if (std::count(std::begin(ARCHS), std::end(ARCHS), arch) == 0) {
        program->log = "no --gpu-architecture=sm_ of a known GPU\n";
        return INVALID_OPTION;
    }
    return compile(*program, arch);
}

EXPORT Result nvrtcGetProgramLogSize(Program* program, size_t* size) {
    *size = program->log.size() + 1;
    return SUCCESS;
}

EXPORT Result nvrtcGetProgramLog(Program* program, char* log) {
    memcpy(log, program->log.c_str(), program->log.size() + 1);
    return SUCCESS;
}

EXPORT Result nvrtcGetCUBINSize(Program* program, size_t* size) {
    if (program->cubin.empty()) return INVALID_PROGRAM;
    *size = program->cubin.size();
    return SUCCESS;
}

EXPORT Result nvrtcGetCUBIN(Program* program, char* cubin) {
    if (program->cubin.empty()) return INVALID_PROGRAM;
    memcpy(cubin, program->cubin.data(), program->cubin.size());
    return SUCCESS;
}
