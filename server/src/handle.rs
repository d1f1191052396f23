//! A way to a task that owns something: others have it do things, one after another.

use tokio::sync::{mpsc, oneshot};

/// Something for the owner to do.
pub(crate) type Command<D> = Box<dyn FnOnce(&mut D) + Send>;

/// A way to the owner of a `D`. Clones lead to the same one.
pub(crate) struct Handle<D> {
    commands: mpsc::UnboundedSender<Command<D>>,
}

/// The owner has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone;

impl<D> Clone for Handle<D> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone() }
    }
}

impl<D: 'static> Handle<D> {
    /// A way to an owner that is still to be made, and its end for that one.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Command<D>>) {
        let (commands, received) = mpsc::unbounded_channel();
        (Self { commands }, received)
    }

    /// Has the owner do `command` and waits for its answer.
    ///
    /// # Errors
    /// [`Gone`] when there is none any more.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut D) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (answer, wait) = oneshot::channel();
        // An answer that nobody waits for any more is dropped.
        self.post(move |owner| drop(answer.send(command(owner))));
        wait.await.map_err(|_| Gone)
    }

    /// Has the owner do `command`, if it is still there.
    pub(crate) fn post(&self, command: impl FnOnce(&mut D) + Send + 'static) {
        let _ = self.commands.send(Box::new(command));
    }
}
