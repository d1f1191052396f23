//! What is on its way to the servers and from them, from one directive to the next.

use std::pin::Pin;

use hw2_common::ids::{Assignment, VersionId};
use tokio_util::task::AbortOnDropHandle;

use super::{Contribution, Credit, Destination, Directive, PsError, Pull, Push, Session};

/// A push, a pull, and the question what comes next.
pub struct Exchange {
    push: Option<Push>,
    pull: Option<Pull>,
    asked: Option<Asked>,
    /// What the destination has, unless a pull has begun to replace it.
    held: Option<VersionId>,
}

/// A question that was put to the server.
pub(super) type Asked = AbortOnDropHandle<Result<Directive, PsError>>;

/// A push that is being finished.
type Pushing<'a> = Pin<Box<dyn Future<Output = Result<(), PsError>> + 'a>>;

impl Exchange {
    /// Nothing yet; the destination has the vectors of `held`.
    pub fn new(held: Option<VersionId>) -> Self {
        Self { push: None, pull: None, asked: None, held }
    }

    /// `assignment` begins to be computed. With credit its buckets go to the servers as they are
    /// made, and if it is the last one, what comes after it is on its way from now on.
    pub fn begin(
        &mut self,
        session: &Session,
        assignment: Assignment,
        credit: &Credit,
        is_last: bool,
    ) {
        if *credit == Credit::Push {
            // Before the push, which would be in its way on a slow link.
            if is_last {
                self.asked = Some(session.ask(Some(assignment)));
                let next = assignment.step.next();
                // Before an evaluation they would be in the way of its EMA.
                self.pull =
                    (!session.eval_due(next)).then(|| session.begin_pull(VersionId::Weights(next)));
            }
            self.push = Some(session.begin_push(assignment));
        }
    }

    /// The next bucket of `contribution` is made, and nothing computes with the weights from number
    /// `start` on any more: backward never turns round.
    pub fn bucket_is_made(
        &mut self,
        contribution: &Contribution,
        start: usize,
        destination: &mut impl Destination,
    ) {
        if let Some(push) = &mut self.push {
            push.send_next_bucket(contribution);
        }
        if let Some(pull) = &mut self.pull {
            pull.deliver(destination, start);
        }
    }

    /// `assignment` is computed: what had no credit asks for it, and is pushed unless it is not
    /// wanted. Says whether it is: if not, the server has something better to do.
    ///
    /// # Errors
    /// Any error ends the session.
    pub fn await_credit(
        &mut self,
        session: &Session,
        assignment: Assignment,
    ) -> Result<bool, PsError> {
        if self.push.is_none() && session.await_credit(assignment)? {
            self.push = Some(session.begin_push(assignment));
        }
        Ok(self.push.is_some())
    }

    /// Waits until the servers have the push, if there is one.
    ///
    /// # Errors
    /// Any error ends the session.
    pub fn finish_push(
        &mut self,
        session: &Session,
        contribution: &Contribution,
    ) -> Result<(), PsError> {
        match self.push.take() {
            Some(push) => session.call(session.finish_push(push, contribution)),
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
        session: &Session,
        contribution: &Contribution,
        destination: &mut impl Destination,
    ) -> Result<(Directive, Option<VersionId>), PsError> {
        let assignment = self.push.as_ref().map(Push::assignment);
        let asked = self.asked.take().unwrap_or_else(|| session.ask(assignment));
        let pushing = self.push.take().map(|mut push| {
            // Before the destination computes.
            push.send_all(contribution);
            Box::pin(session.finish_push(push, contribution)) as Pushing<'_>
        });
        session.call(self.finishing(session, asked, pushing, destination))
    }

    async fn finishing(
        mut self,
        session: &Session,
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
            if self.fetch(session, &directive, &mut pushing, destination).await? {
                done(&mut pushing).await?;
                return Ok((directive, self.held));
            }
            // Its step is over, or will be computed again.
            asked = session.ask(None);
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
        session: &Session,
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
            Directive::Evaluate { step, .. } => VersionId::Evaluation(*step),
            Directive::Wait(_) | Directive::Rejoin(_) | Directive::Stop { .. } => return Ok(true),
        };
        if self.held == Some(needed) {
            return Ok(true);
        }
        self.held = None;
        let pull = pull.filter(|pull| pull.version() == needed);
        let mut pull = pull.unwrap_or_else(|| session.begin_pull(needed));
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
