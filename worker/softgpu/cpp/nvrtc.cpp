// A libnvrtc for tests: compiles the source it is given with g++, for the host.
//
// A "cubin" is the path of a shared object, named by the hash of everything it is made from, so that
// each source is compiled once on a machine. They lie where this library and shim.h do.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace {

enum Result { SUCCESS = 0, INVALID_INPUT = 3, INVALID_PROGRAM = 4, INVALID_OPTION = 5, COMPILATION = 6, INTERNAL = 11 };

constexpr int ARCHS[] = {37, 50, 60, 70, 75, 80, 86, 90, 100, 120};
constexpr char MAGIC[] = "software GPU cubin ";

struct Program { std::string source, name, log, cubin; };

std::string directory() {
    Dl_info info;
    static const int here = 0;
    std::string path = dladdr(&here, &info) ? info.dli_fname : "";
    return path.substr(0, path.rfind('/') + 1) + ".";
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

// The text without comments and string literals, with the same number of lines.
std::string without_comments(const std::string& text) {
    std::string out;
    for (size_t i = 0; i < text.size(); i++) {
        if (text.compare(i, 2, "//") == 0) {
            while (i < text.size() && text[i] != '\n') i++;
            out += '\n';
        } else if (text.compare(i, 2, "/*") == 0) {
            size_t end = text.find("*/", i + 2);
            i = end == std::string::npos ? text.size() : end + 1;
        } else if (text[i] == '"') {
            out += text[i++];
            while (i < text.size() && text[i] != '"') i += text[i] == '\\' ? 2 : 1;
            out += '"';
        } else {
            out += text[i];
        }
    }
    return out;
}

bool is_word(char c) { return isalnum(c) || c == '_'; }

// The words of `text`, and what is between braces after a function's name.
struct Function { bool is_kernel; std::set<std::string> calls; };

std::map<std::string, Function> functions(const std::string& text) {
    std::map<std::string, Function> found;
    size_t i = 0;
    while (i < text.size()) {
        // A definition at the top level: everything up to its opening brace, then its body.
        size_t brace = text.find('{', i), end = text.find(';', i);
        if (brace == std::string::npos) break;
        if (end < brace) { i = end + 1; continue; }
        std::string head = text.substr(i, brace - i);
        if (head.find("extern \"\"") != std::string::npos && head.find('(') == std::string::npos) {
            i = brace + 1;  // extern "C" { ... }
            continue;
        }
        size_t depth = 1, close = brace + 1;
        while (close < text.size() && depth > 0) {
            depth += text[close] == '{';
            depth -= text[close] == '}';
            close++;
        }
        // The name is the last word before the first parenthesis that is not an attribute's.
        std::string plain = head;
        size_t bounds = plain.find("__launch_bounds__");
        if (bounds != std::string::npos) plain.erase(bounds, plain.find(')', bounds) - bounds + 1);
        size_t paren = plain.find('(');
        if (paren != std::string::npos) {
            size_t last = paren;
            while (last > 0 && !is_word(plain[last - 1])) last--;
            size_t first = last;
            while (first > 0 && is_word(plain[first - 1])) first--;
            Function function{head.find("__global__") != std::string::npos, {}};
            std::string body = text.substr(brace, close - brace), word;
            for (char c : body + " ") {
                if (is_word(c)) word += c;
                else if (!word.empty()) { function.calls.insert(word); word.clear(); }
            }
            auto& known = found[plain.substr(first, last - first)];
            known.is_kernel |= function.is_kernel;
            known.calls.insert(function.calls.begin(), function.calls.end());
        }
        i = close;
    }
    return found;
}

bool waits(const std::map<std::string, Function>& all, const std::string& name, std::set<std::string>& seen) {
    if (name.rfind("__sync", 0) == 0 || name.rfind("__shfl", 0) == 0) return true;
    auto function = all.find(name);
    if (function == all.end() || !seen.insert(name).second) return false;
    for (const auto& call : function->second.calls)
        if (waits(all, call, seen)) return true;
    return false;
}

// The source with an entry point for each kernel behind it.
std::string host_source(const Program& program) {
    std::string out = "#include \"shim.h\"\n#line 1 \"" + program.name + "\"\n" + program.source + "\n";
    auto all = functions(without_comments(program.source));
    for (const auto& [name, function] : all) {
        if (!function.is_kernel) continue;
        std::set<std::string> seen;
        out += "extern \"C\" __attribute__((visibility(\"default\"))) void soft_" + name + "(const SoftLaunch* launch) { soft::launch(" + name + ", " +
               (waits(all, name, seen) ? "true" : "false") + ", *launch); }\n" +
               "extern \"C\" __attribute__((visibility(\"default\"))) size_t soft_" + name + "_args(size_t* to) { return soft::arg_sizes(" + name + ", to); }\n";
    }
    return out;
}

bool exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

Result compile(Program& program) {
    std::string source = host_source(program), dir = directory();
    const char* extra = getenv("HW2_SOFTGPU_CXXFLAGS");
    std::string flags = std::string("-std=c++17 -O2 -ftree-vectorize -fPIC -shared -ffp-contract=off -fno-strict-aliasing "
                                    "-fvisibility=hidden -Wall -Wno-unused-function -Wno-unused-variable -Wno-unknown-pragmas ") +
                        (extra ? extra : "");
    std::string path = dir + "/kernels-" + hash(source + contents(dir + "/shim.h") + flags);
    std::string object = path + ".so";
    int lock = open((path + ".lock").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    if (lock < 0 || flock(lock, LOCK_EX) != 0) {
        program.log = "cannot lock " + path + ".lock\n";
        return INTERNAL;
    }
    Result result = SUCCESS;
    if (!exists(object)) {
        std::ofstream(path + ".cpp") << source;
        std::string command = "g++ " + flags + " -I'" + dir + "' -o '" + path + ".new' '" + path + ".cpp' 2> '" + path + ".log'";
        bool good = system(command.c_str()) == 0 && rename((path + ".new").c_str(), object.c_str()) == 0;
        program.log = contents(path + ".log");
        if (!good) result = COMPILATION;
    }
    close(lock);
    program.cubin = MAGIC + object;
    program.cubin += '\0';
    return result;
}

}  // namespace

extern "C" {

const char* nvrtcGetErrorString(Result result) {
    return result == SUCCESS ? "NVRTC_SUCCESS" : result == COMPILATION ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR";
}

Result nvrtcVersion(int* major, int* minor) {
    *major = 11, *minor = 8;
    return SUCCESS;
}

Result nvrtcGetNumSupportedArchs(int* count) {
    *count = sizeof ARCHS / sizeof *ARCHS;
    return SUCCESS;
}

Result nvrtcGetSupportedArchs(int* archs) {
    memcpy(archs, ARCHS, sizeof ARCHS);
    return SUCCESS;
}

Result nvrtcCreateProgram(Program** program, const char* source, const char* name, int headers, const char* const*,
                          const char* const*) {
    if (!program || !source || headers != 0) return INVALID_INPUT;
    *program = new Program{source, name ? name : "default_program", "", ""};
    return SUCCESS;
}

Result nvrtcDestroyProgram(Program** program) {
    delete *program;
    *program = nullptr;
    return SUCCESS;
}

Result nvrtcCompileProgram(Program* program, int count, const char* const* options) {
    bool has_arch = false;
    for (int i = 0; i < count; i++) {
        std::string option = options[i];
        int arch = 0;
        if (sscanf(options[i], "--gpu-architecture=sm_%d", &arch) == 1) {
            for (int known : ARCHS) has_arch |= known == arch;
        } else if (option != "--std=c++14" && option != "--extra-device-vectorization") {
            program->log = "unknown option " + option + "\n";
            return INVALID_OPTION;
        }
    }
    if (!has_arch) {
        program->log = "no --gpu-architecture=sm_ of a known GPU\n";
        return INVALID_OPTION;
    }
    return compile(*program);
}

Result nvrtcGetProgramLogSize(Program* program, size_t* size) {
    *size = program->log.size() + 1;
    return SUCCESS;
}

Result nvrtcGetProgramLog(Program* program, char* log) {
    memcpy(log, program->log.c_str(), program->log.size() + 1);
    return SUCCESS;
}

Result nvrtcGetCUBINSize(Program* program, size_t* size) {
    if (program->cubin.empty()) return INVALID_PROGRAM;
    *size = program->cubin.size();
    return SUCCESS;
}

Result nvrtcGetCUBIN(Program* program, char* cubin) {
    memcpy(cubin, program->cubin.data(), program->cubin.size());
    return SUCCESS;
}

}  // extern "C"
