//! Servers that all tests of a process share.

use std::thread;

use tokio::runtime::Handle;

/// Starts one on a thread and a runtime of its own, which live as long as the process: the runtime of a test ends with the
/// test, and a server with the thread that started it.
pub(crate) fn start_shared<S: Send + 'static>(start: impl AsyncFnOnce(Handle) -> S + Send + 'static) -> S {
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            sender.send(start(Handle::current()).await).expect("the receiver waits");
            std::future::pending::<()>().await;
        });
    });
    receiver.recv().expect("the server starts: see the panic above")
}
