//! Compiled kernels, kept on disk from one start of a worker to the next.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

/// First bytes of a file of ours, which change when its form does.
const MAGIC: &[u8] = b"hw2 kernels 1\n";
const DIGEST_BYTES: usize = 32;
/// First bytes of real code for a GPU, which is an ELF file.
const ELF: &[u8] = b"\x7fELF";

/// A folder of compiled kernels. Whatever is wrong with it, the kernels are just compiled again.
pub(super) struct Cache {
    /// None keeps nothing.
    folder: Option<PathBuf>,
}

/// All that the compiled kernels depend on.
#[derive(Clone, Debug)]
pub(super) struct Key<'a> {
    /// What is compiled.
    pub(super) source: &'a str,
    /// The compiler's options, that for the kind of GPU among them.
    pub(super) options: &'a [String],
    /// The compiler's version of CUDA: major and minor.
    pub(super) version: (u32, u32),
    /// Where the compiler lies: two of one version need not be the same.
    pub(super) compiler: &'a Path,
}

impl Cache {
    /// The user's: $XDG_CACHE_HOME/hw2, or ~/.cache/hw2.
    pub(super) fn of_user() -> Self {
        let folder = |name| std::env::var_os(name).map(PathBuf::from);
        Self { folder: user_folder(folder("XDG_CACHE_HOME"), folder("HOME")) }
    }

    /// What was kept for `key`, or what `compile` makes now.
    ///
    /// # Errors
    /// Those of `compile`.
    pub(super) fn get<E>(
        &self,
        key: &Key,
        compile: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let Some(folder) = &self.folder else { return compile() };
        let path = folder.join(key.file_name());
        match read(&path) {
            Ok(code) => {
                tracing::debug!("compiled kernels from {}", path.display());
                return Ok(code);
            }
            Err(error) => tracing::debug!("kernels are compiled: {}: {error}", path.display()),
        }
        let code = compile()?;
        // What is no real code, as a software GPU's, may depend on more than the key.
        if code.starts_with(ELF)
            && let Err(error) = write(&path, &code)
        {
            tracing::debug!("compiled kernels are not kept in {}: {error}", path.display());
        }
        Ok(code)
    }
}

impl Key<'_> {
    fn file_name(&self) -> String {
        let Self { source, options, version, compiler } = self;
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        };
        add(source.as_bytes());
        add(format!("{version:?}").as_bytes());
        add(compiler.as_os_str().as_encoded_bytes());
        options.iter().for_each(|option| add(option.as_bytes()));
        format!("{}.kernels", hw2_common::hex(&hash.finalize()))
    }
}

/// By the convention of freedesktop.org, which ignores a path that is not absolute.
fn user_folder(cache: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let is_absolute = |path: &PathBuf| path.is_absolute();
    let home = || home.filter(is_absolute).map(|home| home.join(".cache"));
    Some(cache.filter(is_absolute).or_else(home)?.join("hw2"))
}

/// The code in a file of ours: [`MAGIC`], digest of the rest, and the code.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let bytes = std::fs::read(path)?;
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the file is damaged");
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(damaged)?;
    let (digest, code) = rest.split_at_checked(DIGEST_BYTES).ok_or_else(damaged)?;
    match Sha256::digest(code).as_slice() == digest {
        true => Ok(code.to_vec()),
        false => Err(damaged()),
    }
}

/// Aside first, since several workers may write at once.
fn write(path: &Path, code: &[u8]) -> io::Result<()> {
    let folder = path.parent().expect("a file in a folder");
    std::fs::create_dir_all(folder)?;
    let mut file = NamedTempFile::new_in(folder)?;
    for part in [MAGIC, &Sha256::digest(code), code] {
        file.write_all(part)?;
    }
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const CODE: &[u8] = b"\x7fELF and so on";

    /// A cache, and how often something was compiled for it.
    struct World {
        cache: Cache,
        compiled: Cell<usize>,
    }

    impl World {
        fn of(folder: &Path) -> Self {
            Self { cache: Cache { folder: Some(folder.into()) }, compiled: Cell::new(0) }
        }

        fn get(&self, key: &Key) -> Vec<u8> {
            let compile = || {
                self.compiled.set(self.compiled.get() + 1);
                Ok::<_, String>(CODE.to_vec())
            };
            self.cache.get(key, compile).unwrap()
        }
    }

    fn options() -> Vec<String> {
        vec!["--gpu-architecture=sm_70".into()]
    }

    fn key(options: &[String]) -> Key<'_> {
        Key { source: "a kernel", options, version: (12, 4), compiler: Path::new("/cuda/nvrtc") }
    }

    fn only_file(folder: &Path) -> PathBuf {
        let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].path()
    }

    #[test]
    fn the_second_start_compiles_nothing() {
        let folder = tempfile::tempdir().unwrap();
        // It need not be there at first.
        let folder = folder.path().join("cache/hw2");
        let world = World::of(&folder);
        let options = options();
        assert_eq!(world.get(&key(&options)), CODE);
        assert_eq!(world.get(&key(&options)), CODE);
        assert_eq!(world.compiled.get(), 1);
        only_file(&folder);
    }

    #[test]
    fn whatever_it_depends_on_makes_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let world = World::of(folder.path());
        let (options, none) = (options(), Vec::new());
        let key = key(&options);
        let others = [
            key.clone(),
            Key { source: "another", ..key.clone() },
            Key { options: &none, ..key.clone() },
            Key { version: (12, 5), ..key.clone() },
            Key { compiler: Path::new("/other/nvrtc"), ..key.clone() },
        ];
        others.iter().for_each(|key| drop(world.get(key)));
        assert_eq!(world.compiled.get(), others.len());
        others.iter().for_each(|key| drop(world.get(key)));
        assert_eq!(world.compiled.get(), others.len());
    }

    #[test]
    fn a_damaged_file_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let world = World::of(folder.path());
        let options = options();
        world.get(&key(&options));
        let path = only_file(folder.path());
        let good = std::fs::read(&path).unwrap();
        let mut other = good.clone();
        *other.last_mut().unwrap() ^= 1;
        let shorter = good[..good.len() - 1].to_vec();
        let damages = [Vec::new(), MAGIC.to_vec(), other, shorter];
        for (times, damaged) in damages.iter().enumerate() {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(world.get(&key(&options)), CODE);
            assert_eq!(world.compiled.get(), times + 2, "{damaged:?}");
            assert_eq!(std::fs::read(&path).unwrap(), good);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        // Root may write everywhere, but not below a file.
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let world = World::of(&file);
        let options = options();
        for times in 1..3 {
            assert_eq!(world.get(&key(&options)), CODE);
            assert_eq!(world.compiled.get(), times);
        }
    }

    #[test]
    fn errors_and_what_is_no_real_code_are_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let cache = World::of(folder.path()).cache;
        let options = options();
        assert_eq!(cache.get(&key(&options), || Err("no such kernel")), Err("no such kernel"));
        let soft = || Ok::<_, String>(b"a path".to_vec());
        assert_eq!(cache.get(&key(&options), soft).unwrap(), b"a path");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_users_folder_follows_the_convention() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(user_folder(path("/c"), path("/home/me")), path("/c/hw2"));
        assert_eq!(user_folder(path("c"), path("/home/me")), path("/home/me/.cache/hw2"));
        assert_eq!(user_folder(None, path("/home/me")), path("/home/me/.cache/hw2"));
        assert_eq!(user_folder(None, path("")), None);
        assert_eq!(user_folder(None, None), None);
    }
}
