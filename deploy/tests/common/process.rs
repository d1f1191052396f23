//! A child process under the eyes of a test: what it says is kept, and it never outlives the test.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

/// A process that takes longer to end than this will not end.
const END_MAX: Duration = Duration::from_secs(120);
/// Time between two looks at a process.
const PAUSE: Duration = Duration::from_millis(5);

/// A running process, the first of a group of its own. When it is dropped, the group is killed, and
/// if the test is failing, the process is quoted.
pub(crate) struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// How a process ended, and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    /// None when a signal ended it.
    pub(crate) code: Option<i32>,
    /// None when it exited.
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// `hw2` as built for this test, or the one that `HW2_TEST_PROGRAM` names.
fn program() -> OsString {
    std::env::var_os("HW2_TEST_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_hw2").into())
}

/// `hw2` without the config that the environment of the test may hold.
pub(crate) fn hw2_command<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(program());
    command.args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HW2_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

/// Runs `hw2` with `arguments` to its end.
pub(crate) fn hw2<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ended {
    let logs = TempDir::new().unwrap();
    Process::start("hw2", hw2_command(arguments), logs.path()).end()
}

/// Whether there is no such process any more.
pub(crate) fn is_gone(pid: &Pid) -> bool {
    kill(*pid, None) == Err(Errno::ESRCH)
}

impl Process {
    /// Starts `command`; what it says goes to files in `logs` that bear `name`.
    pub(crate) fn start(name: &str, mut command: Command, logs: &Path) -> Self {
        let [stdout, stderr] = ["stdout", "stderr"].map(|end| logs.join(format!("{name}.{end}")));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .stderr(File::create(&stderr).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        Self { name: name.to_owned(), child, stdout, stderr }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said on stderr so far.
    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.unix_pid(), signal).unwrap();
    }

    /// The processes that it has started and that are there.
    pub(crate) fn children(&self) -> Vec<Pid> {
        let parent = |stat: &str| stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok();
        let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let name = entry.ok()?.file_name().to_str()?.parse::<i32>().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{name}/stat")).ok()?;
            (parent(&stat) == Some(self.pid())).then(|| Pid::from_raw(name))
        });
        pids.collect()
    }

    fn unix_pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        let began = Instant::now();
        while !self.has_ended() {
            assert!(began.elapsed() < END_MAX, "{} has not ended in {END_MAX:?}", self.name);
            std::thread::sleep(PAUSE);
        }
        let status = self.child.wait().unwrap();
        let [stdout, stderr] = [&self.stdout, &self.stderr]
            .map(|path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned());
        Ended { code: status.code(), signal: status.signal(), stdout, stderr }
    }

    /// Waits for its end, which must be a good one.
    pub(crate) fn succeed(self) -> Ended {
        let name = self.name.clone();
        let ended = self.end();
        assert!(ended.code == Some(0), "{name} ended badly: {ended}");
        ended
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What it started may have outlived it; usually there is nobody left.
        let _ = killpg(self.unix_pid(), Signal::SIGKILL);
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = std::fs::read(&self.stderr).unwrap_or_default();
            eprintln!("--- {} said:\n{}", self.name, String::from_utf8_lossy(&said));
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, signal, stdout, stderr } = self;
        write!(f, "code {code:?}, signal {signal:?}\nstdout:\n{stdout}\nstderr:\n{stderr}")
    }
}
