//! Events of membership: join, heartbeat, leave, and the passing of time.

use std::time::Duration;

use hw2_common::ids::WorkerId;

use super::directives::is_awaited;
use super::membership::{Introduction, MEMBERS_MAX};
use super::{
    Asking, Coordinator, Credit, Directive, Effect, Level, Now, Phase, Question, Refusal, Waiter,
};

/// Longest wait of a question for credit: it is a small call, and small calls have a deadline.
const CREDIT_WAIT_MAX: Duration = Duration::from_secs(10);

/// What a heartbeat is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    KeepGoing,
    Rejoin(String),
    Stop(String),
}

impl Coordinator {
    /// A worker wants to take part.
    ///
    /// # Errors
    /// Names what differs from the run, with both values.
    pub(crate) fn join(
        &mut self,
        now: Now,
        introduction: Introduction,
    ) -> Result<WorkerId, Refusal> {
        self.expected.check(&introduction)?;
        let Introduction { label, numeric_kind, .. } = introduction;
        self.hung_up.remove(&label);
        let worker = self.members.join(now, label, numeric_kind)?;
        let name = self.members.name(worker);
        self.notice(Level::Info, format!("{name} joined"));
        self.tell_kinds_apart(worker);
        let (members, replicas) = (self.members.len(), self.job.config.replicas as usize);
        if members == replicas + 1 {
            let text = format!(
                "{members} workers for replicas = {replicas}: no more than {replicas} can work at \
                 once on a step; a run with more replicas makes use of more"
            );
            self.notice(Level::Warn, text);
        }
        Ok(worker)
    }

    /// The first result that counts decides what computes alike: a worker that only joined does
    /// not.
    pub(super) fn fix_numeric_kind(&mut self, worker: WorkerId) {
        if self.expected.numeric_kind.is_none() {
            self.expected.numeric_kind = self.members.numeric_kind(worker).map(str::to_owned);
            let members: Vec<_> = self.members.iter().map(|(member, _)| member).collect();
            members.into_iter().for_each(|member| self.tell_kinds_apart(member));
        }
    }

    /// A member of another kind than the run is warned of where that is allowed, and else no longer
    /// one: when it joins again, it is told why not.
    fn tell_kinds_apart(&mut self, worker: WorkerId) {
        let Some(ours) = &self.expected.numeric_kind else { return };
        let Some(theirs) = self.members.numeric_kind(worker).filter(|kind| kind != ours) else {
            return;
        };
        let text = format!("is of numeric kind `{theirs}`, the run of `{ours}`");
        match self.expected.allow_mixed {
            true => {
                let name = self.members.name(worker);
                let end = "the run's result is no longer a function of its config";
                self.notice(Level::Warn, format!("{name} {text}: {end}"));
            }
            false => self.lose(worker, Level::Warn, &text),
        }
    }

    /// A worker is alive.
    pub(crate) fn heartbeat(&mut self, now: Now, worker: WorkerId) -> Standing {
        if !self.members.saw(now, worker) {
            return Standing::Rejoin(not_a_member(worker));
        }
        match &self.phase {
            Phase::Ended(_, reason) => Standing::Stop(reason.clone()),
            _ => Standing::KeepGoing,
        }
    }

    /// A worker goes and gives its leases back.
    pub(crate) fn leave(&mut self, now: Now, worker: WorkerId, reason: &str) {
        if self.members.get(worker).is_some() {
            let reason: String = reason.chars().filter(|c| !c.is_control()).take(200).collect();
            self.lose(worker, Level::Info, &format!("left: {reason}"));
            self.serve(now);
        }
    }

    /// The connection over which a worker joined has closed: it is gone, or will join again over
    /// another.
    pub(crate) fn hang_up(&mut self, now: Now, worker: WorkerId) {
        let Some(member) = self.members.get(worker) else { return };
        let level = match member.stopped {
            Some(_) => Level::Info,
            None => {
                if self.hung_up.len() < MEMBERS_MAX {
                    self.hung_up.insert(member.label.clone(), now);
                }
                Level::Warn
            }
        };
        self.lose(worker, level, "hung up");
        self.serve(now);
    }

    /// Time has passed: leases of the silent and of the stuck expire, long waits end.
    pub(crate) fn tick(&mut self, now: Now) {
        if now.since(self.ticked) >= self.limits.silence / 2 {
            // This process was not running; what its workers sent meanwhile is still to be read.
            self.members.saw_all(now);
        }
        self.ticked = now;
        self.hung_up.retain(|_, since| now.since(*since) <= self.limits.silence);
        let silent = |seen| now.since(seen) > self.limits.silence;
        let silent: Vec<_> = self.members.iter().filter(|(_, m)| silent(m.seen)).collect();
        let silent: Vec<_> = silent.into_iter().map(|(worker, _)| worker).collect();
        for worker in silent {
            let ms = self.limits.silence.as_millis();
            self.lose(worker, Level::Warn, &format!("was silent for more than {ms} ms"));
        }
        for worker in self.stuck(now) {
            self.take_leases(worker);
        }
        self.serve(now);
        self.end_long_waits(now);
        self.tell(now);
    }

    /// Workers that are alive but have not got on with what they owe.
    fn stuck(&self, now: Now) -> Vec<WorkerId> {
        let (leases, began) = match &self.phase {
            Phase::Training(barrier) => (&self.replicas, barrier.began),
            Phase::Evaluating(barrier) => (&barrier.leases, barrier.began),
            _ => return Vec::new(),
        };
        let slow = |(worker, member): &(WorkerId, &super::membership::Member)| {
            let since = member.progressed.max(began);
            let waits = self.credits.get(worker).is_some_and(|question| !question.computing);
            let owes = !leases.owed_by(*worker).is_empty();
            now.since(since) > self.limits.assignment && owes && !waits
        };
        self.members.iter().filter(slow).map(|(worker, _)| worker).collect()
    }

    /// The worker stays a member, but others get its work until it asks again.
    fn take_leases(&mut self, worker: WorkerId) {
        self.revoke(worker);
        if let Some(member) = self.members.get_mut(worker) {
            member.ready = false;
        }
        let ms = self.limits.assignment.as_millis();
        let name = self.members.name(worker);
        let why = format!("got nothing done in {ms} ms: its leases expire");
        // Or it would be given more by what it asked before it was stuck.
        if let Some(Asking { waiter, .. }) = self.asking.remove(&worker) {
            self.effects
                .push(Effect::Direct(waiter, Directive::Wait(format!("this worker {why}"))));
        }
        self.notice(Level::Warn, format!("{name} {why}"));
    }

    fn lose(&mut self, worker: WorkerId, level: Level, why: &str) {
        let name = self.members.name(worker);
        self.members.remove(worker);
        self.revoke(worker);
        self.notice(level, format!("{name} {why}"));
        if self.members.is_empty() && !matches!(self.phase, Phase::Ended(..)) {
            self.notice(Level::Warn, "no worker is left: waiting for one to join".into());
        }
        if let Some(Asking { waiter, .. }) = self.asking.remove(&worker) {
            let directive = Directive::Rejoin(not_a_member(worker));
            self.effects.push(Effect::Direct(waiter, directive));
        }
        if let Some(Question { waiter, .. }) = self.credits.remove(&worker) {
            let credit = Credit::Drop(not_a_member(worker));
            self.effects.push(Effect::GiveCredit(waiter, credit));
        }
    }

    fn revoke(&mut self, worker: WorkerId) {
        self.replicas.revoke(worker);
        if let Phase::Evaluating(barrier) = &mut self.phase {
            barrier.leases.revoke(worker);
        }
    }

    fn end_long_waits(&mut self, now: Now) {
        let long = |since: &Now, wait: Duration| now.since(*since) >= wait;
        // Who computes what it will push does not wait yet.
        let computes = |asking: &Asking| match &self.phase {
            Phase::Training(barrier) => {
                is_awaited(self.progress.global_step, barrier, asking.pushing)
            }
            _ => false,
        };
        let waits = |(_, asking): &(&WorkerId, &Asking)| {
            long(&asking.since, self.limits.wait) && !computes(asking)
        };
        let asking = self.asking.iter().filter(waits);
        let asking: Vec<(WorkerId, Waiter)> =
            asking.map(|(w, asking)| (*w, asking.waiter)).collect();
        let credit_wait = self.limits.wait.min(CREDIT_WAIT_MAX);
        let credits = self.credits.iter().filter(|(_, asked)| long(&asked.asked, credit_wait));
        let credits: Vec<(WorkerId, Question)> = credits.map(|(w, asked)| (*w, *asked)).collect();
        for (worker, waiter) in asking {
            self.asking.remove(&worker);
            self.effects.push(Effect::Direct(waiter, Directive::Wait(self.waiting_for())));
        }
        for (worker, Question { waiter, computing, .. }) in credits {
            self.credits.remove(&worker);
            if !computing {
                self.members.progressed(now, worker);
            }
            self.effects.push(Effect::GiveCredit(waiter, Credit::Wait(self.waiting_for())));
        }
    }

    pub(super) fn notice(&mut self, level: Level, text: String) {
        self.effects.push(Effect::Notice(level, text));
    }
}

pub(super) fn not_a_member(worker: WorkerId) -> String {
    format!("{worker} is no member (any more): join again")
}
