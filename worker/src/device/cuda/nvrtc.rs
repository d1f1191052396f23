//! The runtime compiler of CUDA: source in, code for one kind of GPU out.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use libloading::Library;

type Program = *mut c_void;
type Status = c_int;

/// Functions of libnvrtc, alike in all its versions.
pub(super) struct Nvrtc {
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> Status,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    log: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    cubin_size: unsafe extern "C" fn(Program, *mut usize) -> Status,
    cubin: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    destroy: unsafe extern "C" fn(*mut Program) -> Status,
    error: unsafe extern "C" fn(Status) -> *const c_char,
    /// What the functions are of.
    _library: Library,
}

impl Nvrtc {
    /// # Errors
    /// A function is missing.
    pub(super) fn new(library: Library) -> Result<Self, libloading::Error> {
        // SAFETY: the signatures are those of nvrtc.h, which has not changed them since CUDA 11.1.
        unsafe {
            Ok(Self {
                create: *library.get(b"nvrtcCreateProgram\0")?,
                compile: *library.get(b"nvrtcCompileProgram\0")?,
                log_size: *library.get(b"nvrtcGetProgramLogSize\0")?,
                log: *library.get(b"nvrtcGetProgramLog\0")?,
                cubin_size: *library.get(b"nvrtcGetCUBINSize\0")?,
                cubin: *library.get(b"nvrtcGetCUBIN\0")?,
                destroy: *library.get(b"nvrtcDestroyProgram\0")?,
                error: *library.get(b"nvrtcGetErrorString\0")?,
                _library: library,
            })
        }
    }

    /// Code for GPUs of compute capability `arch` (70 for 7.0).
    ///
    /// # Errors
    /// What the compiler says.
    pub(super) fn compile(&self, source: &str, arch: u32) -> Result<Vec<u8>, String> {
        let source = CString::new(source).map_err(|error| error.to_string())?;
        let mut program = ptr::null_mut();
        // SAFETY: all strings end with 0 and outlive the call; there are no headers.
        let status = unsafe {
            let (name, none) = (c"kernels.cu", ptr::null());
            (self.create)(&mut program, source.as_ptr(), name.as_ptr(), 0, none, none)
        };
        self.check(status)?;
        let code = self.code_of(program, arch);
        // SAFETY: the program was created above and is used no more.
        unsafe { (self.destroy)(&mut program) };
        code
    }

    fn code_of(&self, program: Program, arch: u32) -> Result<Vec<u8>, String> {
        let options = [format!("--gpu-architecture=sm_{arch}"), "--std=c++14".into()];
        let options = options.map(|option| CString::new(option).expect("no 0 within"));
        let pointers = options.each_ref().map(|option| option.as_ptr());
        // SAFETY: the program is alive, and so are the options.
        let status = unsafe { (self.compile)(program, pointers.len() as c_int, pointers.as_ptr()) };
        if let Err(error) = self.check(status) {
            let log = self.output(program, self.log_size, self.log)?;
            return Err(format!("{error}:\n{}", String::from_utf8_lossy(&log)));
        }
        self.output(program, self.cubin_size, self.cubin)
    }

    fn output(
        &self,
        program: Program,
        size: unsafe extern "C" fn(Program, *mut usize) -> Status,
        content: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ) -> Result<Vec<u8>, String> {
        let mut len = 0;
        // SAFETY: the program is alive; `content` writes as many bytes as `size` says.
        unsafe {
            self.check(size(program, &mut len))?;
            let mut bytes = vec![0_u8; len];
            self.check(content(program, bytes.as_mut_ptr().cast()))?;
            Ok(bytes)
        }
    }

    fn check(&self, status: Status) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: the string is a constant of the library.
        let text = unsafe { CStr::from_ptr((self.error)(status)) };
        Err(text.to_string_lossy().into_owned())
    }
}
