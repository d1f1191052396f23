//! The model as the rest of the worker sees it: f32 in and out, whatever the device.
