//! Launches that are given to the driver once and then repeated all together.

#![allow(unsafe_code)]

use std::sync::Arc;

use cudarc::driver::{CudaGraph, CudaStream, DriverError, sys};

/// What a stream was asked to do, to be repeated.
pub(super) struct Graph(CudaGraph);

// SAFETY: the driver wants that no two threads use it at once. It is owned, and never cloned.
unsafe impl Send for Graph {}

impl Graph {
    /// What `ask` asks of `stream`, without doing it; none if the driver cannot do that.
    ///
    /// # Errors
    /// Those of `ask`.
    pub(super) fn capture<E>(
        stream: &Arc<CudaStream>,
        ask: impl FnOnce() -> Result<(), E>,
    ) -> Result<Option<Self>, E> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        if !is_known() || stream.begin_capture(mode).is_err() {
            return Ok(None);
        }
        let asked = ask();
        let captured = stream.end_capture(sys::CUgraphInstantiate_flags(0));
        asked?;
        match captured {
            Ok(graph) => Ok(graph.map(Self)),
            Err(error) => {
                tracing::warn!("no graph of the launches, they are made one by one: {error:?}");
                Ok(None)
            }
        }
    }

    /// Does it all.
    pub(super) fn launch(&self) -> Result<(), DriverError> {
        self.0.launch()
    }
}

/// Whether the driver has all functions that a graph takes: cudarc would panic for want of one.
fn is_known() -> bool {
    const FUNCTIONS: [&[u8]; 6] = [
        b"cuStreamBeginCapture_v2\0",
        b"cuStreamEndCapture\0",
        b"cuGraphInstantiateWithFlags\0",
        b"cuGraphLaunch\0",
        b"cuGraphExecDestroy\0",
        b"cuGraphDestroy\0",
    ];
    // SAFETY: libcuda is loaded.
    let driver = unsafe { sys::culib() };
    // SAFETY: the function is looked for, and not called.
    let is_there = |name: &&[u8]| unsafe { driver.get::<*const ()>(*name) }.is_ok();
    FUNCTIONS.iter().all(is_there)
}
