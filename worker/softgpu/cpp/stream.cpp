// Streams, the order in which their work runs, and events.
#include <algorithm>

#include "driver.h"

namespace {

std::set<Event*> events;

// The tasks at the head of a stream that may run now.
bool is_ready(const Stream& stream) {
    return !stream.tasks.empty() && (!stream.tasks.front().waits || stream.tasks.front().waits->is_done);
}

std::vector<Stream*> all_streams() {
    std::vector<Stream*> all;
    for (Context& context : contexts) all.push_back(&context.null_stream);
    all.insert(all.end(), streams.begin(), streams.end());
    return all;
}

// Runs one task of some stream; false if none may run.
bool run_one() {
    std::vector<Stream*> ready = all_streams();
    ready.erase(std::remove_if(ready.begin(), ready.end(), [](Stream* s) { return !is_ready(*s); }), ready.end());
    if (ready.empty()) return false;
    Stream* stream = ready[settings.seed ? chance() % ready.size() : 0];
    Task task = std::move(stream->tasks.front());
    stream->tasks.pop_front();
    if (task.work) task.work();
    if (task.records) task.records->is_done = true;
    return true;
}

// A GPU may be done with something before its caller goes on: now and then some of what was asked for runs at once.
void run_ahead() {
    while (settings.seed && chance() % 4 == 0 && run_one()) {}
}

// Until `done` or until the context's GPU fails.
template <class Done> CUresult run_until(Context* context, Done done) {
    while (!context->error && !done())
        if (!run_one()) die("nothing can run: a stream waits for an event that is never recorded");
    check_all_guards();
    if (is_idle()) reclaim();
    return context->error;
}

// Any live stream: also that of another context.
CUresult any_stream(void* handle, Stream*& stream) {
    stream = handle ? static_cast<Stream*>(handle) : &current->null_stream;
    return !handle || streams.count(stream) ? SUCCESS : INVALID_HANDLE;
}

CUresult find_event(void* handle, Event*& event) {
    event = static_cast<Event*>(handle);
    return events.count(event) ? SUCCESS : INVALID_HANDLE;
}

// An event that stands for a place in a capture has no state, and who asks for it spoils the capture.
CUresult not_captured(const Event& event) {
    return event.capture ? invalidate(*event.capture, CAPTURED_EVENT) : SUCCESS;
}

// Brings a stream into the capture that the event was recorded in, or makes it wait for more there.
CUresult join(Stream* stream, const Event& event) {
    if (event.capture->is_over) return CAPTURED_EVENT;
    if (stream->capture && stream->capture != event.capture) {
        invalidate(*stream->capture, CAPTURE_MERGE);
        return invalidate(*event.capture, CAPTURE_MERGE);
    }
    if (!stream->capture) stream->last.clear();
    stream->capture = event.capture;
    stream->capture->streams.insert(stream);
    stream->last.insert(stream->last.end(), event.captured.begin(), event.captured.end());
    return SUCCESS;
}

}  // namespace

CUresult find_stream(void* handle, Stream*& stream) {
    TRY(any_stream(handle, stream));
    if (stream->context != current) return INVALID_HANDLE;
    return stream->capture && stream->capture->is_invalid ? CAPTURE_INVALIDATED : SUCCESS;
}

CUresult enqueue(Stream* stream, std::string what, Work work, Work at_launch) {
    if (stream->capture) {
        Nodes& nodes = stream->capture->nodes;
        nodes.push_back({std::move(what), std::move(work), stream->last, std::move(at_launch)});
        stream->last = {nodes.size() - 1};
    } else {
        stream->tasks.push_back({std::move(what), std::move(work), nullptr, nullptr});
        run_ahead();
    }
    return SUCCESS;
}

bool is_idle() {
    auto all = all_streams();
    return std::all_of(all.begin(), all.end(), [](Stream* stream) { return stream->tasks.empty(); });
}

CUresult finish(Stream* stream) {
    return run_until(stream->context, [=] { return stream->tasks.empty(); });
}

CUresult finish_all() {
    return run_until(current, [] {
        auto all = all_streams();
        auto is_done = [](Stream* stream) { return stream->context != current || stream->tasks.empty(); };
        return std::all_of(all.begin(), all.end(), is_done);
    });
}

void lose(Context* context, CUresult error) {
    context->error = error;
    for (Stream* stream : all_streams()) {
        if (stream->context != context) continue;
        // Other GPUs do not wait for ever.
        for (Task& task : stream->tasks)
            if (task.records) task.records->is_done = true;
        stream->tasks.clear();
    }
}

void forget_streams(Context* context) {
    forget(streams, context);
    forget(events, context);
}

EXPORT bool soft_owns(void* context, void* stream) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    return !stream || (streams.count(static_cast<Stream*>(stream)) && static_cast<Stream*>(stream)->context == context);
}

EXPORT bool soft_captures(void* context, void* stream) {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    return stream && soft_owns(context, stream) && static_cast<Stream*>(stream)->capture;
}

EXPORT CUresult soft_enqueue(void*, void* handle, const char* what, Work* work) {
    ENTER;
    Stream* stream;
    TRY(find_stream(handle, stream));
    std::string name = what;
    Work copy = *work;
    return enqueue(stream, name, [=] { log(name); copy(); });
}

EXPORT CUresult cuStreamCreate(void** to, unsigned) {
    ENTER;
    auto* stream = new Stream{current, {}, nullptr, {}};
    streams.insert(stream);
    *to = stream;
    return SUCCESS;
}

EXPORT CUresult cuStreamDestroy_v2(void* handle) {
    ENTER;
    Stream* stream;
    if (!handle) return INVALID_HANDLE;
    TRY(any_stream(handle, stream));
    if (stream->capture) leave_capture(stream);
    CUresult result = finish(stream);
    streams.erase(stream);
    delete stream;
    return result;
}

EXPORT CUresult cuStreamSynchronize(void* handle) {
    ENTER;
    Stream* stream;
    TRY(any_stream(handle, stream));
    if (stream->capture) return invalidate(*stream->capture, CAPTURE_UNSUPPORTED);
    return finish(stream);
}

EXPORT CUresult cuStreamQuery(void* handle) {
    ENTER;
    Stream* stream;
    TRY(any_stream(handle, stream));
    if (stream->capture) return invalidate(*stream->capture, CAPTURE_UNSUPPORTED);
    return stream->tasks.empty() ? SUCCESS : NOT_READY;
}

EXPORT CUresult cuEventCreate(void** to, unsigned flags) {
    ENTER;
    constexpr unsigned DISABLE_TIMING = 2;
    auto* event = new Event{current, !(flags & DISABLE_TIMING), nullptr, nullptr, {}};
    events.insert(event);
    *to = event;
    return SUCCESS;
}

EXPORT CUresult cuEventDestroy_v2(void* handle) {
    ENTER;
    Event* event;
    TRY(find_event(handle, event));
    events.erase(event);
    delete event;
    return SUCCESS;
}

EXPORT CUresult cuEventRecord(void* handle, void* stream_handle) {
    ENTER;
    Event* event;
    Stream* stream;
    TRY(find_event(handle, event));
    TRY(find_stream(stream_handle, stream));
    if (event->context != stream->context) return INVALID_HANDLE;
    event->capture = stream->capture;
    event->captured = stream->last;
    if (stream->capture) return SUCCESS;
    event->record = std::make_shared<Record>();
    stream->tasks.push_back({"record", nullptr, nullptr, event->record});
    run_ahead();
    return SUCCESS;
}

// The event may be of another GPU.
EXPORT CUresult cuStreamWaitEvent(void* stream_handle, void* handle, unsigned) {
    ENTER;
    Event* event;
    Stream* stream;
    TRY(find_event(handle, event));
    TRY(find_stream(stream_handle, stream));
    if (event->capture) return join(stream, *event);
    if (stream->capture) return invalidate(*stream->capture, CAPTURE_ISOLATION);
    if (event->record) stream->tasks.push_back({"wait", nullptr, event->record, nullptr});
    return SUCCESS;
}

EXPORT CUresult cuEventSynchronize(void* handle) {
    ENTER;
    Event* event;
    TRY(find_event(handle, event));
    TRY(not_captured(*event));
    auto record = event->record;
    return run_until(event->context, [=] { return !record || record->is_done; });
}

EXPORT CUresult cuEventQuery(void* handle) {
    ENTER;
    Event* event;
    TRY(find_event(handle, event));
    TRY(not_captured(*event));
    TRY(not_captured());
    return !event->record || event->record->is_done ? SUCCESS : NOT_READY;
}

EXPORT CUresult cuEventElapsedTime(float* ms, void* from, void* to) {
    ENTER;
    for (void* handle : {from, to}) {
        Event* event;
        TRY(find_event(handle, event));
        TRY(not_captured(*event));
        if (!event->has_time || !event->record) return INVALID_HANDLE;
        if (!event->record->is_done) return NOT_READY;
    }
    *ms = 0.001f;
    return SUCCESS;
}

