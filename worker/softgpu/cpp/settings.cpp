// What the environment says of the GPU, and its log.
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "driver.h"

Settings::Settings() {
    const char* text = getenv("HW2_SOFTGPU");
    std::stringstream words(text ? text : "");
    std::string word;
    while (words >> word) {
        size_t is = word.find('=');
        std::string key = word.substr(0, is), value = is == std::string::npos ? "" : word.substr(is + 1);
        long number = atol(value.c_str());
        if (key == "devices") devices = number;
        else if (key == "cc") sscanf(value.c_str(), "%d.%d", &major, &minor);
        else if (key == "driver") driver = number;
        else if (key == "pools") pools = number;
        else if (key == "graphs") has_graphs = number != 0;
        else if (key == "memory_mb") memory_mb = number;
        else if (key == "seed") seed = number;
        else if (key == "fail_alloc") fail_alloc = number;
        else if (key == "fail_launch") fail_launch = number;
        else if (key == "lose") lose = number;
        else if (key == "hang") hang = number;
        else if (key == "fail_with") fail_with = number;
        else die("no such setting: " + word);
    }
}

void die(const std::string& what) {
    fprintf(stderr, "software GPU: %s\n", what.c_str());
    abort();
}

void log(const std::string& what) {
    static FILE* file = getenv("HW2_SOFTGPU_LOG") ? fopen(getenv("HW2_SOFTGPU_LOG"), "a") : nullptr;
    if (!file) return;
    fprintf(file, "%s\n", what.c_str());
    fflush(file);
}
