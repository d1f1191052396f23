//! What to do when a child ends, the user interrupts or time is up: decisions without processes.

use std::fmt;
use std::time::{Duration, Instant};

use hw2_common::child::{Ending, ONE_REQUEST};

/// Times that one child is started again before it is given up.
const RESTARTS_MAX: u32 = 3;
/// A child that ran this long starts with a clean record: its failures have nothing in common.
const CLEAN_RECORD: Duration = Duration::from_secs(600);
/// Wait before the second and each further restart of one child.
const RESTART_DELAY: Duration = Duration::from_secs(2);
/// Time for workers to end by themselves once the server has told them to.
const GOODBYE: Duration = Duration::from_secs(5);
const SIGTERM: i32 = nix::libc::SIGTERM;

/// Who a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The server; of several the one that decides.
    Server,
    /// One of its followers by its place among those, from 0.
    Follower(usize),
    /// A worker by its place, from 0.
    Worker(usize),
}

/// What happens to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The server answers.
    ServerAnswers,
    /// A child ended after it had run for this long.
    Ended(Role, Ending, Duration),
    /// Ctrl-C or SIGTERM.
    Interrupted,
    /// The time that [`Supervisor::deadline`] named has come.
    DeadlinePassed,
}

/// What the shell does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing.
    Nothing,
    /// Start one child.
    Start(Role),
    /// Start all workers.
    StartWorkers,
    /// Ask the server to write a checkpoint and end.
    DrainServer,
    /// Ask all but the server to end.
    StopOthers,
    /// Kill everything.
    KillAll,
}

/// An action and, where a person would ask, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// What to do.
    pub(crate) action: Action,
    /// A sentence for the log.
    pub(crate) reason: Option<String>,
}

/// How a cluster ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The run ended by its own rules, or somebody else asked its server to stop.
    Finished,
    /// The user ended it; a checkpoint was written.
    Interrupted,
    /// With the reason.
    Failed(String),
}

/// What is known of the children.
#[derive(Clone, Debug)]
pub(crate) struct Supervisor {
    server: Child,
    followers: Vec<Child>,
    workers: Vec<Child>,
    phase: Phase,
    /// Time for the server to end after it was asked to.
    grace: Duration,
    /// When the user interrupted first.
    interrupted: Option<Instant>,
    /// When patience with the children that should be ending, or the server, is over.
    patience: Option<Instant>,
    outcome: Outcome,
}

#[derive(Clone, Debug)]
struct Child {
    state: ChildState,
    restarts: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChildState {
    Running,
    /// Will be started: at a time, or when the server answers.
    Waiting(Option<Instant>),
    /// In good order, and before the run is over: told to by the server, which is then about to
    /// end, or by somebody else. Patience tells which.
    Left,
    /// The server has told it that the run is over, and ends too.
    Finished,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// The server was asked to end.
    Draining,
    /// The server is gone, the workers should be going.
    Parting,
    /// So should they after having been asked.
    Stopping,
}

impl Supervisor {
    /// A server that has just been started with its followers, and workers to start once it
    /// answers.
    pub(crate) fn new(followers: usize, workers: usize, grace: Duration) -> Self {
        let child = |state| Child { state, restarts: 0 };
        Self {
            server: child(ChildState::Running),
            followers: vec![child(ChildState::Running); followers],
            workers: vec![child(ChildState::Waiting(None)); workers],
            phase: Phase::Running,
            grace,
            interrupted: None,
            patience: None,
            outcome: Outcome::Finished,
        }
    }

    /// How the cluster ended; none while a child runs.
    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        let runs = |child: &Child| child.state == ChildState::Running;
        let over = !runs(&self.server) && !self.followers.iter().chain(&self.workers).any(runs);
        (over && self.phase != Phase::Running).then_some(&self.outcome)
    }

    /// When to call [`Self::decide`] with [`Event::DeadlinePassed`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let restarts = self.workers.iter().filter_map(|child| match child.state {
            ChildState::Waiting(at) => at,
            _ => None,
        });
        restarts.chain(self.patience).min()
    }

    /// Takes in `event` and says what to do about it.
    pub(crate) fn decide(&mut self, now: Instant, event: Event) -> Decision {
        match event {
            Event::ServerAnswers => self.server_answers(),
            Event::Ended(Role::Server, ending, lived) => self.server_ended(now, ending, lived),
            Event::Ended(Role::Follower(place), ending, lived) => {
                self.follower_ended(now, place, ending, lived)
            }
            Event::Ended(Role::Worker(place), ending, lived) => {
                self.worker_ended(now, place, ending, lived)
            }
            Event::Interrupted => self.interrupted(now),
            Event::DeadlinePassed => self.deadline_passed(now),
        }
    }

    fn server_answers(&mut self) -> Decision {
        let first = ChildState::Waiting(None);
        if self.phase != Phase::Running || !self.workers.iter().any(|child| child.state == first) {
            return Decision::silent(Action::Nothing);
        }
        self.workers.iter_mut().for_each(|child| child.state = ChildState::Running);
        Decision::silent(Action::StartWorkers)
    }

    fn server_ended(&mut self, now: Instant, ending: Ending, lived: Duration) -> Decision {
        if self.phase == Phase::Running && ending.is_accident() && self.server.may_restart(lived) {
            let reason =
                format!("the server {ending}: starting it again from its newest checkpoint");
            return Decision::new(Action::Start(Role::Server), reason);
        }
        self.server.state = ChildState::Gone;
        self.forget_restarts();
        // A server that is still reading the dataset has nothing to save, and ends at once.
        let never_began = self.phase == Phase::Draining && ending == Ending::Killed(SIGTERM);
        if ending == Ending::Exited(0) || never_began {
            let works = self.workers.iter().any(|child| child.state == ChildState::Running);
            if !works || self.outcome == Outcome::Interrupted {
                // Nothing is left to do for the others, and those that had not yet joined would
                // wait for a server.
                return self.stop_others(now);
            }
            self.phase = Phase::Parting;
            self.patience = Some(now + GOODBYE);
            return Decision::silent(Action::Nothing);
        }
        let again = if ending.is_accident() && self.server.restarts > 0 { " again" } else { "" };
        // What it was stopped for is worse.
        if !matches!(self.outcome, Outcome::Failed(_)) {
            self.outcome = Outcome::Failed(format!("the server {ending}{again}"));
        }
        self.stop_others(now)
    }

    fn follower_ended(
        &mut self,
        now: Instant,
        place: usize,
        ending: Ending,
        lived: Duration,
    ) -> Decision {
        let (role, follower) = (Role::Follower(place), &mut self.followers[place]);
        if self.phase == Phase::Running && ending.is_accident() && follower.may_restart(lived) {
            let reason =
                format!("{role} {ending}: starting it again, all go on from the newest checkpoint");
            return Decision::new(Action::Start(role), reason);
        }
        follower.state = ChildState::Gone;
        // Told to, by a server that is about to end too.
        if self.phase != Phase::Running || ending == Ending::Exited(0) {
            return Decision::silent(Action::Nothing);
        }
        let again = if ending.is_accident() { " again" } else { "" };
        self.outcome = Outcome::Failed(format!("{role} {ending}{again}"));
        self.drain(now, format!("{role} {ending}{again}: stopping the server"))
    }

    fn worker_ended(
        &mut self,
        now: Instant,
        place: usize,
        ending: Ending,
        lived: Duration,
    ) -> Decision {
        let role = Role::Worker(place);
        self.workers[place].state = ChildState::Gone;
        if self.phase != Phase::Running {
            return Decision::silent(Action::Nothing);
        }
        if ending == Ending::Exited(0) {
            self.workers[place].state = ChildState::Finished;
            self.patience = Some(now + self.grace);
            return Decision::silent(Action::Nothing);
        }
        if ending.is_in_order() {
            self.workers[place].state = ChildState::Left;
            self.patience = Some(now + GOODBYE);
            return Decision::silent(Action::Nothing);
        }
        if self.workers[place].may_restart(lived) {
            let worker = &mut self.workers[place];
            let delay = if worker.restarts == 1 { Duration::ZERO } else { RESTART_DELAY };
            worker.state = ChildState::Waiting(Some(now + delay));
            let reason = format!("{role} {ending}: starting it again");
            return Decision::new(Action::Nothing, reason);
        }
        if self.workers.iter().any(|child| child.state != ChildState::Gone) {
            let reason = format!("{role} {ending}: going on without it");
            return Decision::new(Action::Nothing, reason);
        }
        self.outcome = Outcome::Failed(format!("every worker failed; {role} {ending} at last"));
        self.drain(now, format!("{role} {ending}, and no other is left: stopping the server"))
    }

    fn interrupted(&mut self, now: Instant) -> Decision {
        let first = *self.interrupted.get_or_insert(now);
        if first != now && now.duration_since(first) < ONE_REQUEST {
            return Decision::silent(Action::Nothing);
        }
        if self.phase != Phase::Running {
            self.outcome = Outcome::Failed("killed before it had ended in good order".into());
            return Decision::new(Action::KillAll, "interrupted again: killing everything".into());
        }
        self.outcome = Outcome::Interrupted;
        let reason = "interrupted: writing a checkpoint (once more to kill everything)";
        self.drain(now, reason.into())
    }

    fn deadline_passed(&mut self, now: Instant) -> Decision {
        if let Some(place) = self.workers.iter().position(|child| child.is_due(now)) {
            self.workers[place].state = ChildState::Running;
            return Decision::silent(Action::Start(Role::Worker(place)));
        }
        if self.patience.is_none_or(|patience| now < patience) {
            return Decision::silent(Action::Nothing);
        }
        match self.phase {
            Phase::Running if self.workers.iter().any(Child::has_finished) => {
                let reason = "the run is over and the server still there: stopping it";
                self.drain(now, reason.into())
            }
            Phase::Running => self.miss_those_who_left(now),
            Phase::Parting => self.stop_others(now),
            Phase::Draining | Phase::Stopping => {
                self.patience = None;
                self.outcome = Outcome::Failed("some processes did not end in time".into());
                Decision::new(Action::KillAll, "killing what did not end in time".into())
            }
        }
    }

    /// The run goes on, so that it was not the server that told them to go.
    fn miss_those_who_left(&mut self, now: Instant) -> Decision {
        self.patience = None;
        let mut names = Vec::new();
        for (place, child) in self.workers.iter_mut().enumerate() {
            if child.state == ChildState::Left {
                child.state = ChildState::Gone;
                names.push(Role::Worker(place).to_string());
            }
        }
        if self.workers.iter().all(|child| child.state == ChildState::Gone) {
            self.outcome = Outcome::Failed("all workers have left".into());
            return self.drain(now, "all workers have left: stopping the server".into());
        }
        let reason = format!("{} left: going on without", names.join(" and "));
        Decision::new(Action::Nothing, reason)
    }

    fn drain(&mut self, now: Instant, reason: String) -> Decision {
        self.phase = Phase::Draining;
        self.forget_restarts();
        self.patience = Some(now + self.grace);
        Decision::new(Action::DrainServer, reason)
    }

    fn stop_others(&mut self, now: Instant) -> Decision {
        self.phase = Phase::Stopping;
        self.patience = Some(now + self.grace);
        Decision::silent(Action::StopOthers)
    }

    fn forget_restarts(&mut self) {
        for child in &mut self.workers {
            if matches!(child.state, ChildState::Waiting(_)) {
                child.state = ChildState::Gone;
            }
        }
    }
}

impl Child {
    /// Counts a restart if there is one left.
    fn may_restart(&mut self, lived: Duration) -> bool {
        if lived >= CLEAN_RECORD {
            self.restarts = 0;
        }
        let may = self.restarts < RESTARTS_MAX;
        self.restarts += u32::from(may);
        may
    }

    fn has_finished(&self) -> bool {
        self.state == ChildState::Finished
    }

    fn is_due(&self, now: Instant) -> bool {
        matches!(self.state, ChildState::Waiting(Some(at)) if at <= now)
    }
}

impl Decision {
    fn new(action: Action, reason: String) -> Self {
        Self { action, reason: Some(reason) }
    }

    fn silent(action: Action) -> Self {
        Self { action, reason: None }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => write!(f, "server"),
            Self::Follower(place) => write!(f, "server-{}", place + 1),
            Self::Worker(place) => write!(f, "worker-{place}"),
        }
    }
}

#[cfg(test)]
#[path = "supervisor_tests.rs"]
mod tests;
