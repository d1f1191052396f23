//! The runtime compiler of CUDA: source in, code for one kind of GPU out.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use libloading::Library;

type Program = *mut c_void;
type Status = c_int;

/// What became of a source.
pub(super) struct Compiled {
    pub(super) code: Vec<u8>,
    /// What the compiler says besides.
    #[cfg_attr(not(test), expect(dead_code, reason = "the compile gate reads it"))]
    pub(super) log: String,
}

/// Functions of libnvrtc, alike in all its versions from CUDA 11.2 on.
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
    version: unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status,
    arch_count: unsafe extern "C" fn(*mut c_int) -> Status,
    archs: unsafe extern "C" fn(*mut c_int) -> Status,
    /// What the functions are of.
    _library: Library,
}

impl Nvrtc {
    /// # Errors
    /// A function is missing.
    pub(super) fn new(library: Library) -> Result<Self, libloading::Error> {
        // SAFETY: the signatures are those of nvrtc.h, which has not changed them since CUDA 11.2.
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
                version: *library.get(b"nvrtcVersion\0")?,
                arch_count: *library.get(b"nvrtcGetNumSupportedArchs\0")?,
                archs: *library.get(b"nvrtcGetSupportedArchs\0")?,
                _library: library,
            })
        }
    }

    /// Its version of CUDA: major and minor.
    ///
    /// # Errors
    /// It does not say.
    pub(super) fn version(&self) -> Result<(u32, u32), String> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: it writes two ints.
        self.check(unsafe { (self.version)(&mut major, &mut minor) })?;
        Ok((major as u32, minor as u32))
    }

    /// The compute capabilities (70 for 7.0) that it compiles for.
    ///
    /// # Errors
    /// It does not say.
    pub(super) fn archs(&self) -> Result<Vec<u32>, String> {
        let mut count = 0;
        // SAFETY: the first writes one int, and the second as many as that says.
        unsafe {
            self.check((self.arch_count)(&mut count))?;
            let mut archs = vec![0; count as usize];
            self.check((self.archs)(archs.as_mut_ptr()))?;
            Ok(archs.into_iter().map(|arch: c_int| arch as u32).collect())
        }
    }

    /// All options for GPUs of compute capability `arch`, with `more` than we need.
    pub(super) fn options(arch: u32, more: &[&str]) -> Vec<String> {
        let arch = format!("--gpu-architecture=sm_{arch}");
        let options = [arch.as_str(), "--std=c++14"].into_iter().chain(more.iter().copied());
        options.map(str::to_owned).collect()
    }

    /// Compiles for GPUs of compute capability `arch` (70 for 7.0), with more `options` than we
    /// need.
    ///
    /// # Errors
    /// What the compiler says.
    pub(super) fn compile(
        &self,
        source: &str,
        arch: u32,
        options: &[&str],
    ) -> Result<Compiled, String> {
        let source = CString::new(source).map_err(|error| error.to_string())?;
        let mut program = ptr::null_mut();
        // SAFETY: all strings end with 0 and outlive the call; there are no headers.
        let status = unsafe {
            let (name, none) = (c"kernels.cu", ptr::null());
            (self.create)(&mut program, source.as_ptr(), name.as_ptr(), 0, none, none)
        };
        self.check(status)?;
        let compiled = self.run(program, arch, options);
        // SAFETY: the program was created above and is used no more.
        unsafe { (self.destroy)(&mut program) };
        compiled
    }

    fn run(&self, program: Program, arch: u32, more: &[&str]) -> Result<Compiled, String> {
        let options = Self::options(arch, more).into_iter();
        let options = options.map(|option| CString::new(option).expect("no 0 within"));
        let options: Vec<CString> = options.collect();
        let pointers: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
        // SAFETY: the program is alive, and so are the options.
        let status = unsafe { (self.compile)(program, pointers.len() as c_int, pointers.as_ptr()) };
        let log = self.output(program, self.log_size, self.log)?;
        let log = String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned();
        match self.check(status) {
            Ok(()) => {
                let code = self.output(program, self.cubin_size, self.cubin)?;
                Ok(Compiled { code, log })
            }
            Err(error) => Err(format!("{error}:\n{log}")),
        }
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
