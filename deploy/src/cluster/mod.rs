//! A server and its workers as child processes of this one, from the first step to the last.

mod child;
mod socket;
mod supervisor;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use hw2_common::address::Addresses;
use hw2_common::child::Child;
use hw2_proto::v1::StatusReply;
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

pub(crate) use self::socket::SocketDir;
pub(crate) use self::supervisor::Outcome;
use self::supervisor::{Action, Event, Role, Supervisor};
use crate::control::Control;

/// Time between two looks at the server's status.
const STATUS_INTERVAL: Duration = Duration::from_millis(250);

/// What to start: this program, several times.
pub(crate) struct Plan {
    /// Where the servers listen.
    pub(crate) addresses: Addresses,
    /// The arguments of the first one, but for where it listens.
    pub(crate) server: Vec<OsString>,
    /// The arguments of each worker.
    pub(crate) workers: Vec<Vec<OsString>>,
    /// Folder for the children's logs.
    pub(crate) log_dir: PathBuf,
    /// Time for the server to end after it was asked to.
    pub(crate) grace: Duration,
}

impl Plan {
    fn shards(&self) -> usize {
        self.addresses.all().len()
    }

    /// The arguments of a server.
    fn server(&self, shard: usize) -> Vec<OsString> {
        let (count, listen) = (self.shards(), self.addresses.all()[shard].to_string());
        let shard_flag = format!("{shard}/{count}");
        let all = ["server", "--lifeline", "--listen", &listen, "--shard", &shard_flag];
        let all = all.map(OsString::from).into_iter();
        match shard {
            0 => all.chain(self.server.iter().cloned()).collect(),
            _ => {
                let coordinator = self.addresses.coordinator().to_string();
                all.chain(["--coordinator".into(), coordinator.into()]).collect()
            }
        }
    }
}

/// What the cluster has to say while it runs.
pub(crate) trait Audience {
    /// A line of a child's log.
    fn child_line(&mut self, child: &str, line: &str);
    /// A decision of the cluster's, in words.
    fn decision(&mut self, reason: &str);
    /// How the server is.
    fn status(&mut self, status: &StatusReply);
}

#[derive(Debug)]
enum Message {
    Line(Role, String),
    Event(Event),
    Status(Box<StatusReply>),
}

/// Runs the cluster until it has ended.
///
/// # Errors
/// A child cannot be started. All others lose their lifeline and end by themselves.
pub(crate) async fn run(plan: &Plan, audience: &mut impl Audience) -> anyhow::Result<Outcome> {
    let (sender, mut messages) = unbounded_channel();
    std::fs::create_dir_all(&plan.log_dir)
        .with_context(|| format!("cannot make the folder {}", plan.log_dir.display()))?;
    let mut children = Children::new(plan, sender.clone())?;
    let mut supervisor = Supervisor::new(plan.shards() - 1, plan.workers.len(), plan.grace);
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let watch = tokio::spawn(watch_status(Control::new(plan.addresses.coordinator())?, sender));
    children.act(Action::Start(Role::Server))?;
    (1..plan.shards())
        .try_for_each(|shard| children.act(Action::Start(Role::Follower(shard - 1))))?;
    let outcome = loop {
        if let Some(outcome) = supervisor.outcome() {
            break outcome.clone();
        }
        let deadline = supervisor.deadline();
        let event = tokio::select! {
            event = next_event(&mut messages, audience) => event,
            _ = interrupt.recv() => Event::Interrupted,
            _ = terminate.recv() => Event::Interrupted,
            () = sleep_until(deadline.unwrap_or_else(Instant::now).into()), if deadline.is_some() =>
                Event::DeadlinePassed,
        };
        if let Event::Ended(role, ..) = event {
            children.forget(role);
        }
        let decision = supervisor.decide(Instant::now(), event);
        if let Some(reason) = &decision.reason {
            audience.decision(reason);
        }
        children.act(decision.action)?;
    };
    watch.abort();
    Ok(outcome)
}

/// Passes lines and figures on to the audience until something happens that needs a decision.
async fn next_event(
    messages: &mut UnboundedReceiver<Message>,
    audience: &mut impl Audience,
) -> Event {
    loop {
        match messages.recv().await.expect("this process holds a sender too") {
            Message::Line(role, line) => audience.child_line(&role.to_string(), &line),
            Message::Event(event) => return event,
            Message::Status(status) => {
                audience.status(&status);
                return Event::ServerAnswers;
            }
        }
    }
}

async fn watch_status(mut control: Control, messages: UnboundedSender<Message>) {
    let mut ticks = interval(STATUS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // No answer is no news: whether the server lives is told by its process.
        if let Ok(status) = control.status().await
            && messages.send(Message::Status(Box::new(status))).is_err()
        {
            return;
        }
    }
}

/// The processes that were started, and the means to start more.
struct Children<'a> {
    plan: &'a Plan,
    program: PathBuf,
    messages: UnboundedSender<Message>,
    server: Option<Child>,
    followers: Vec<Option<Child>>,
    workers: Vec<Option<Child>>,
}

impl<'a> Children<'a> {
    fn new(plan: &'a Plan, messages: UnboundedSender<Message>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let none = |count| std::iter::repeat_with(|| None).take(count).collect();
        let (followers, workers) = (none(plan.shards() - 1), none(plan.workers.len()));
        Ok(Self { plan, program, messages, server: None, followers, workers })
    }

    fn act(&mut self, action: Action) -> anyhow::Result<()> {
        match action {
            Action::Nothing => {}
            Action::Start(role) => self.start(role)?,
            Action::StartWorkers => {
                (0..self.workers.len()).try_for_each(|place| self.start(Role::Worker(place)))?;
            }
            Action::DrainServer => {
                self.server.iter().for_each(|child| child.signal(Signal::SIGTERM))
            }
            Action::StopOthers => self.signal_others(Signal::SIGTERM),
            Action::KillAll => {
                self.server.iter().for_each(|child| child.signal(Signal::SIGKILL));
                self.signal_others(Signal::SIGKILL);
            }
        }
        Ok(())
    }

    fn start(&mut self, role: Role) -> anyhow::Result<()> {
        let (arguments, place) = match role {
            Role::Server => (self.plan.server(0), &mut self.server),
            Role::Follower(place) => (self.plan.server(place + 1), &mut self.followers[place]),
            Role::Worker(place) => (self.plan.workers[place].clone(), &mut self.workers[place]),
        };
        let command = child::command(&self.program, &arguments, std::env::vars_os());
        *place = Some(child::start(role, command, &self.plan.log_dir, self.messages.clone())?);
        Ok(())
    }

    /// A process that has ended must not be signalled: its id may become another's.
    fn forget(&mut self, role: Role) {
        match role {
            Role::Server => self.server = None,
            Role::Follower(place) => self.followers[place] = None,
            Role::Worker(place) => self.workers[place] = None,
        }
    }

    fn signal_others(&self, signal: Signal) {
        self.workers.iter().chain(&self.followers).flatten().for_each(|child| child.signal(signal));
    }
}
