//! What is on its way to the server and from it, from one directive to the next.

use hw2_common::ids::Assignment;

use super::{Contribution, Credit, Destination, Directive, Held, PsError, Pull, Push, Session};

/// A push, a pull, or both at once.
pub struct Exchange {
    push: Option<Push>,
    pull: Option<Pull>,
    /// None while a pull replaces it.
    held: Option<Held>,
}

impl Exchange {
    /// Nothing yet.
    pub fn new(held: Held) -> Self {
        Self { push: None, pull: None, held: Some(held) }
    }

    /// `assignment` begins to be computed. With credit its buckets go to the server as they are
    /// made, and if it is the last one, what comes after it is on its way from now on.
    pub fn begin(
        &mut self,
        session: &Session,
        assignment: Assignment,
        credit: &Credit,
        is_last: bool,
    ) {
        if *credit == Credit::Push {
            self.push = Some(session.begin_push(assignment));
            if is_last {
                let pull = |held| session.begin_pull(held, Some(assignment));
                self.pull = self.held.take().map(pull);
            }
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

    /// Waits until the server has the push, if there is one.
    ///
    /// # Errors
    /// Any error ends the session.
    pub fn finish_push(
        &mut self,
        session: &Session,
        contribution: &Contribution,
    ) -> Result<(), PsError> {
        if let Some(push) = self.push.take() {
            session.finish_push(push, contribution)?;
        }
        Ok(())
    }

    /// Whether the server has said what comes next.
    pub fn is_answered(&self) -> bool {
        self.pull.as_ref().is_some_and(Pull::is_answered)
    }

    /// Waits for the push, if there is one, and for what to do next; afterwards `destination` has
    /// all that it needs for that.
    ///
    /// # Errors
    /// Any error ends the session, and with it the use of what was held.
    pub fn finish(
        self,
        session: &Session,
        contribution: &Contribution,
        destination: &mut impl Destination,
    ) -> Result<(Directive, Held), PsError> {
        let pushing = self.push.as_ref().map(Push::assignment);
        let pull = match (self.pull, self.held) {
            (Some(pull), _) => pull,
            (None, held) => session.begin_pull(held.expect("no pull has it"), pushing),
        };
        match self.push {
            Some(push) => session.push_and_pull(push, contribution, pull, destination),
            None => session.finish_pull(pull, destination),
        }
    }
}
