// Makes a source that g++ compiles for the host from one in CUDA C++: an entry point for each kernel.
#pragma once
#include <cctype>
#include <map>
#include <set>
#include <string>

namespace source {

// The text without comments and string literals, with the same number of lines.
inline std::string without_comments(const std::string& text) {
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

// What is known of a function: the words between its braces are what it may call.
struct Function {
    bool is_kernel = false;
    // The threads of a block that its launch bounds allow, as an expression.
    std::string bounds;
    std::set<std::string> calls;
};

typedef std::map<std::string, Function> Functions;

inline bool is_word(char c) { return isalnum(static_cast<unsigned char>(c)) || c == '_'; }

inline std::set<std::string> words(const std::string& text) {
    std::set<std::string> found;
    std::string word;
    for (char c : text + " ") {
        if (is_word(c)) word += c;
        else if (!word.empty()) { found.insert(word); word.clear(); }
    }
    return found;
}

// The place behind what the bracket at `open` closes.
inline size_t behind(const std::string& text, size_t open, char opens, char closes) {
    size_t depth = 0, at = open;
    do {
        depth += text[at] == opens;
        depth -= text[at] == closes;
        at++;
    } while (at < text.size() && depth > 0);
    return at;
}

// Takes the launch bounds out of a function's head; returns the first of them.
inline std::string take_bounds(std::string& head) {
    const std::string name = "__launch_bounds__";
    size_t start = head.find(name), open = head.find('(', start);
    if (start == std::string::npos || open == std::string::npos) return "";
    size_t end = behind(head, open, '(', ')');
    std::string all = head.substr(open + 1, end - open - 2);
    head.erase(start, end - start);
    size_t depth = 0;
    for (size_t i = 0; i < all.size(); i++) {
        depth += all[i] == '(';
        depth -= all[i] == ')';
        if (all[i] == ',' && depth == 0) return all.substr(0, i);
    }
    return all;
}

// The last word before the first parenthesis.
inline std::string name_in(const std::string& head) {
    size_t last = head.find('(');
    if (last == std::string::npos) return "";
    while (last > 0 && !is_word(head[last - 1])) last--;
    size_t first = last;
    while (first > 0 && is_word(head[first - 1])) first--;
    return head.substr(first, last - first);
}

// All that are defined at the top level of `text`, or in a block of extern "C".
inline Functions functions(const std::string& text) {
    Functions found;
    size_t at = 0;
    while (at < text.size()) {
        // A definition: everything up to its opening brace, then its body.
        size_t brace = text.find('{', at), end = text.find(';', at);
        if (brace == std::string::npos) break;
        if (end < brace) { at = end + 1; continue; }
        std::string head = text.substr(at, brace - at);
        if (head.find("extern \"\"") != std::string::npos && head.find('(') == std::string::npos) {
            at = brace + 1;
            continue;
        }
        at = behind(text, brace, '{', '}');
        std::string bounds = take_bounds(head), name = name_in(head);
        if (name.empty()) continue;
        Function& known = found[name];
        known.is_kernel |= head.find("__global__") != std::string::npos;
        if (!bounds.empty()) known.bounds = bounds;
        known.calls.merge(words(text.substr(brace, at - brace)));
    }
    return found;
}

// Whether a thread in `name` may wait for others.
inline bool waits(const Functions& all, const std::string& name, std::set<std::string>& seen) {
    if (name.rfind("__sync", 0) == 0 || name.rfind("__shfl", 0) == 0) return true;
    auto function = all.find(name);
    if (function == all.end() || !seen.insert(name).second) return false;
    for (const auto& call : function->second.calls)
        if (waits(all, call, seen)) return true;
    return false;
}

// What libcuda looks for: the kernel itself, its arguments and the threads that its block may have.
inline std::string entry_points(const Functions& all, const std::string& name) {
    std::set<std::string> seen;
    const std::string entry = "extern \"C\" __attribute__((visibility(\"default\"))) ", symbol = "soft_" + name;
    const std::string& bounds = all.at(name).bounds;
    return entry + "void " + symbol + "(const SoftLaunch* launch) { soft::launch(" + name + ", " +
           (waits(all, name, seen) ? "true" : "false") + ", *launch); }\n" +
           entry + "size_t " + symbol + "_args(size_t* to) { return soft::arg_sizes(" + name + ", to); }\n" +
           entry + "unsigned " + symbol + "_bounds() { return " + (bounds.empty() ? "1024" : bounds) + "; }\n";
}

// `text`, called `name`, for GPUs of compute capability `arch` (80 for 8.0).
inline std::string for_host(const std::string& text, const std::string& name, int arch) {
    std::string out = "#include \"shim.h\"\n#define __CUDA_ARCH__ " + std::to_string(10 * arch) + "\n";
    out += "#line 1 \"" + name + "\"\n" + text + "\n";
    Functions all = functions(without_comments(text));
    for (const auto& [name, function] : all)
        if (function.is_kernel) out += entry_points(all, name);
    return out;
}

}  // namespace source
