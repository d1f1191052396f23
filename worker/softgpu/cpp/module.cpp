// Modules, their kernels, and launches.
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <sstream>
#include <unistd.h>

#include "driver.h"

namespace {

struct Function {
    Context* context;
    void (*entry)(const SoftLaunch*);
    std::string name;
    std::vector<size_t> arg_sizes;
    // The threads of a block that the compiler was promised not to exceed.
    unsigned bounds;
};

// Those of all modules.
std::set<Function*> functions;

struct Module {
    Context* context;
    void* library;
    std::map<std::string, std::unique_ptr<Function>> own;
    ~Module() {
        for (const auto& [name, function] : own) functions.erase(function.get());
        dlclose(library);
    }
};

std::set<Module*> modules;
long launched;

typedef std::vector<std::vector<char>> Args;

// Whether a GPU runs what was compiled for `arch`: 80 for 8.0.
bool can_run(int arch) { return arch / 10 == settings.major && arch % 10 <= settings.minor; }

CUresult load(const char* image, void** library) {
    int arch = 0, path = 0;
    if (strncmp(image, SOFT_CUBIN, strlen(SOFT_CUBIN)) != 0) return INVALID_IMAGE;
    image += strlen(SOFT_CUBIN);
    if (sscanf(image, "%d %n", &arch, &path) != 1) return INVALID_IMAGE;
    if (!can_run(arch)) return NO_BINARY_FOR_GPU;
    *library = dlopen(image + path, RTLD_NOW | RTLD_LOCAL);
    if (*library) return SUCCESS;
    fprintf(stderr, "software GPU: %s\n", dlerror());
    return INVALID_IMAGE;
}

template <class T> T symbol(const Module& module, const std::string& name) {
    return reinterpret_cast<T>(dlsym(module.library, name.c_str()));
}

std::unique_ptr<Function> find_function(const Module& module, const std::string& name) {
    auto entry = symbol<void (*)(const SoftLaunch*)>(module, "soft_" + name);
    auto sizes = symbol<size_t (*)(size_t*)>(module, "soft_" + name + "_args");
    auto bounds = symbol<unsigned (*)()>(module, "soft_" + name + "_bounds");
    if (!entry || !sizes || !bounds) return nullptr;
    std::vector<size_t> arg_sizes(sizes(nullptr));
    sizes(arg_sizes.data());
    return std::make_unique<Function>(Function{module.context, entry, name, arg_sizes, bounds()});
}

// The driver copies the arguments before a launch returns.
std::shared_ptr<Args> copy_args(const Function& function, void** params) {
    auto args = std::make_shared<Args>();
    for (size_t i = 0; i < function.arg_sizes.size(); i++) {
        auto* arg = static_cast<const char*>(params[i]);
        args->emplace_back(arg, arg + function.arg_sizes[i]);
    }
    return args;
}

// What a launch does when its turn comes.
void run(const Function& function, SoftLaunch launch, Args& args, long number, const std::string& what) {
    if (number == settings.lose) lose(function.context, settings.fail_with);
    if (number == settings.hang) {
        fprintf(stderr, "software GPU: a launch hangs\n");
        for (;;) pause();
    }
    if (function.context->error) return;
    log(what);
    std::vector<void*> pointers;
    for (auto& arg : args) pointers.push_back(arg.data());
    launch.seed = settings.seed ? unsigned(chance()) | 1 : 0;
    launch.args = pointers.data();
    function.entry(&launch);
}

}  // namespace

void forget_modules(Context* context) { forget(modules, context); }

EXPORT CUresult cuModuleLoadData(void** to, const void* image) {
    ENTER;
    TRY(not_captured());
    void* library;
    TRY(load(static_cast<const char*>(image), &library));
    auto* module = new Module{current, library, {}};
    modules.insert(module);
    *to = module;
    return SUCCESS;
}

EXPORT CUresult cuModuleUnload(void* handle) {
    ENTER;
    auto* module = static_cast<Module*>(handle);
    if (!modules.count(module)) return INVALID_HANDLE;
    TRY(finish_all());
    modules.erase(module);
    delete module;
    return SUCCESS;
}

EXPORT CUresult cuModuleGetFunction(void** to, void* handle, const char* name) {
    ENTER;
    auto* module = static_cast<Module*>(handle);
    if (!modules.count(module)) return INVALID_HANDLE;
    auto& function = module->own[name];
    if (!function) function = find_function(*module, name);
    if (!function) return NOT_FOUND;
    functions.insert(function.get());
    *to = function.get();
    return SUCCESS;
}

EXPORT CUresult cuFuncSetAttribute(void* handle, int, int) {
    ENTER;
    return functions.count(static_cast<Function*>(handle)) ? SUCCESS : INVALID_HANDLE;
}

EXPORT CUresult cuLaunchKernel(void* handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                               unsigned bz, unsigned shared, void* stream_handle, void** params, void** extra) {
    ENTER;
    auto* function = static_cast<Function*>(handle);
    Stream* stream;
    TRY(find_stream(stream_handle, stream));
    if (!functions.count(function) || function->context != current) return INVALID_HANDLE;
    uint64_t threads = uint64_t(bx) * by * bz;
    bool is_empty = !gx || !gy || !gz || !threads;
    if (is_empty || gx > 0x7fffffff || gy > 65535 || gz > 65535 || threads > 1024 || bz > 64) return INVALID_VALUE;
    if (shared || extra || (!params && !function->arg_sizes.empty())) return INVALID_VALUE;
    if (threads > function->bounds) return LAUNCH_OUT_OF_RESOURCES;
    long number = ++launched;
    if (number == settings.fail_launch) return settings.fail_with;
    auto args = copy_args(*function, params);
    std::ostringstream text;
    text << function->name << " " << gx << "x" << gy << "x" << gz << " " << bx << "x" << by << "x" << bz;
    std::string what = text.str();
    SoftLaunch launch{{gx, gy, gz}, {bx, by, bz}, 0, nullptr};
    return enqueue(stream, what, [=] { run(*function, launch, *args, number, what); });
}
