//! What is on its way to the servers and from them, from one directive to the next.

use std::pin::Pin;

use futures_util::FutureExt;
use hw2_common::ids::{Assignment, VersionId};
use tokio_util::task::AbortOnDropHandle;

use super::{Contribution, Credit, Destination, Directive, PsError, Pull, Push, Session};

/// A push, a pull, and the question what comes next.
pub struct Exchange<'a> {
    session: &'a Session,
    working: Option<Working>,
    push: Option<Push>,
    pull: Option<Pull>,
    asked: Option<Asked>,
    /// What the destination has, unless a pull has begun to replace it.
    held: Option<VersionId>,
}

/// A question that was put to the server.
pub(super) type Asked = AbortOnDropHandle<Result<Directive, PsError>>;

/// The question whether to push: yes, or it is not wanted any more.
pub(super) type CreditAsked = AbortOnDropHandle<Result<bool, PsError>>;

/// What is being computed.
struct Working {
    assignment: Assignment,
    is_last: bool,
    /// Buckets of its gradient that are made.
    made: usize,
    /// While there is no credit.
    credit: Option<CreditAsked>,
}

impl Working {
    /// Whether there is credit that was asked for, and that nobody knows of yet.
    fn has_credit(&mut self) -> bool {
        let answer = self.credit.take_if(|credit| credit.is_finished());
        // Any other answer is asked for again when all is made.
        matches!(answer.and_then(FutureExt::now_or_never), Some(Ok(Ok(true))))
    }
}

/// A push that is being finished.
type Pushing<'a> = Pin<Box<dyn Future<Output = Result<(), PsError>> + 'a>>;

impl<'a> Exchange<'a> {
    /// Nothing yet; the destination has the vectors of `held`.
    pub fn new(session: &'a Session, held: Option<VersionId>) -> Self {
        Self { session, working: None, push: None, pull: None, asked: None, held }
    }

    /// `assignment` begins to be computed. With credit its buckets go to the servers as they are
    /// made, and if it is the last one, what comes after it is on its way from now on; without,
    /// that begins as soon as there is some.
    pub fn begin(&mut self, assignment: Assignment, credit: &Credit, is_last: bool) {
        let mut working = Working { assignment, is_last, made: 0, credit: None };
        match credit {
            Credit::Push => self.open(assignment, is_last),
            Credit::Wait(_) | Credit::Drop(_) => {
                working.credit = Some(self.session.ask_credit(assignment, true));
            }
        }
        self.working = Some(working);
    }

    /// There is credit for `assignment`.
    fn open(&mut self, assignment: Assignment, is_last: bool) {
        // Before the push, which would be in its way on a slow link.
        if is_last {
            self.asked = Some(self.session.ask(Some(assignment)));
            let next = assignment.step.next();
            // Before an evaluation they would be in the way of its EMA.
            self.pull = (!self.session.eval_due(next))
                .then(|| self.session.begin_pull(VersionId::Weights(next)));
        }
        self.push = Some(self.session.begin_push(assignment));
    }

    /// The next bucket of `contribution` is made, and nothing computes with the weights from number
    /// `start` on any more: backward never turns round.
    pub fn bucket_is_made(
        &mut self,
        contribution: &Contribution,
        start: usize,
        destination: &mut impl Destination,
    ) {
        let Some(working) = &mut self.working else { return };
        working.made += 1;
        let (assignment, is_last, made) = (working.assignment, working.is_last, working.made);
        if working.has_credit() {
            self.open(assignment, is_last);
        }
        if let Some(push) = &mut self.push {
            push.send_buckets(contribution, made);
        }
        if let Some(pull) = &mut self.pull {
            pull.deliver(destination, start);
        }
    }

    /// The assignment is computed: what had no credit asks for it, and is pushed unless it is not
    /// wanted. Says whether it is: if not, the server has something better to do.
    ///
    /// # Errors
    /// Any error ends the session.
    pub fn await_credit(&mut self) -> Result<bool, PsError> {
        if let Some(mut working) = self.working.take()
            && self.push.is_none()
        {
            let is_wanted = working.has_credit() || {
                // From now on it waits. Two questions would answer each other.
                working.credit = None;
                let credit = self.session.ask_credit(working.assignment, false);
                self.session.call(async { credit.await.expect("asking does not panic") })?
            };
            self.push = is_wanted.then(|| self.session.begin_push(working.assignment));
        }
        Ok(self.push.is_some())
    }

    /// Waits until the servers have the push, if there is one.
    ///
    /// # Errors
    /// Any error ends the session.
    pub fn finish_push(&mut self, contribution: &Contribution) -> Result<(), PsError> {
        match self.push.take() {
            Some(push) => self.session.call(self.session.finish_push(push, contribution)),
            None => Ok(()),
        }
    }

    /// Whether the server has said what comes next.
    pub fn is_answered(&self) -> bool {
        self.asked.as_ref().is_some_and(AbortOnDropHandle::is_finished)
    }

    /// Waits for the push, if there is one, and for what to do next; afterwards `destination` has
    /// all that it needs for that, and the second value says what it has.
    ///
    /// # Errors
    /// Any error ends the session, and with it the use of what was held.
    pub fn finish(
        mut self,
        contribution: &Contribution,
        destination: &mut impl Destination,
    ) -> Result<(Directive, Option<VersionId>), PsError> {
        let session = self.session;
        let assignment = self.push.as_ref().map(Push::assignment);
        let asked = self.asked.take().unwrap_or_else(|| session.ask(assignment));
        let pushing = self.push.take().map(|mut push| {
            // Before the destination computes.
            push.send_all(contribution);
            Box::pin(session.finish_push(push, contribution)) as Pushing<'_>
        });
        session.call(self.finishing(asked, pushing, destination))
    }

    async fn finishing(
        mut self,
        mut asked: Asked,
        mut pushing: Option<Pushing<'_>>,
        destination: &mut impl Destination,
    ) -> Result<(Directive, Option<VersionId>), PsError> {
        loop {
            let directive = self.directive(asked, &mut pushing, destination).await?;
            // A server that ends, or knows this worker no more, need not take the push.
            if matches!(directive, Directive::Stop { .. } | Directive::Rejoin(_)) {
                return Ok((directive, None));
            }
            if self.fetch(&directive, &mut pushing, destination).await? {
                done(&mut pushing).await?;
                return Ok((directive, self.held));
            }
            // Its step is over, or will be computed again.
            asked = self.session.ask(None);
        }
    }

    /// Waits for the directive, and takes in what is pulled meanwhile.
    async fn directive(
        &mut self,
        mut asked: Asked,
        pushing: &mut Option<Pushing<'_>>,
        destination: &mut impl Destination,
    ) -> Result<Directive, PsError> {
        loop {
            if let Some(pull) = &mut self.pull {
                pull.deliver(destination, 0);
                // What arrives while it computes takes its place before it goes on.
                if !asked.is_finished() && destination.work_ahead() {
                    continue;
                }
            }
            tokio::select! {
                biased;
                // A server that ends says so before it cuts off the push.
                directive = &mut asked => return directive.expect("asking does not panic"),
                true = arrives(&mut self.pull, destination) => {}
                pushed = done(pushing), if pushing.is_some() => pushed?,
            }
        }
    }

    /// Has the destination take in what `directive` needs and it lacks; false if there is no such
    /// version any more.
    async fn fetch(
        &mut self,
        directive: &Directive,
        pushing: &mut Option<Pushing<'_>>,
        destination: &mut impl Destination,
    ) -> Result<bool, PsError> {
        let pull = self.pull.take();
        if pull.as_ref().is_some_and(Pull::has_begun) {
            self.held = None;
        }
        let needed = match directive {
            Directive::Run { step, .. } => VersionId::Weights(*step),
            Directive::Evaluate { step, .. } => VersionId::Ema(*step),
            Directive::Wait(_) | Directive::Rejoin(_) | Directive::Stop { .. } => return Ok(true),
        };
        if self.held == Some(needed) {
            return Ok(true);
        }
        self.held = None;
        let pull = pull.filter(|pull| pull.version() == needed);
        let mut pull = pull.unwrap_or_else(|| self.session.begin_pull(needed));
        loop {
            pull.deliver(destination, 0);
            if !pull.is_over() && destination.work_ahead() {
                continue;
            }
            tokio::select! {
                biased;
                is_there = pull.arrives(destination) => if !is_there { break },
                pushed = done(pushing), if pushing.is_some() => pushed?,
            }
        }
        let is_there = pull.end().await?;
        self.held = is_there.then_some(needed);
        Ok(is_there)
    }
}

/// Waits for the next chunk of a pull; false if there is none to wait for.
async fn arrives(pull: &mut Option<Pull>, destination: &mut impl Destination) -> bool {
    match pull {
        Some(pull) => pull.arrives(destination).await,
        None => false,
    }
}

/// Waits until a push is finished, if there is one.
async fn done(pushing: &mut Option<Pushing<'_>>) -> Result<(), PsError> {
    if let Some(push) = pushing {
        let pushed = push.await;
        *pushing = None;
        pushed?;
    }
    Ok(())
}
