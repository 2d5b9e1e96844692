//! A few threads for requests that may take long.
//!
//! There are about as many FUSE threads as cores; a sync of a slow disk in each of them would stop
//! the mount for everyone.

use std::sync::Arc;
use std::sync::mpsc;

use parking_lot::Mutex;

type Job = Box<dyn FnOnce() + Send>;

/// Threads of their own; they end with it.
#[derive(Debug)]
pub(super) struct Offload {
    jobs: Mutex<mpsc::Sender<Job>>,
}

impl Offload {
    const THREADS: usize = 4;

    pub(super) fn start() -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel::<Job>();
        let receiver = Arc::new(Mutex::new(receiver));
        for index in 0..Self::THREADS {
            let receiver = Arc::clone(&receiver);
            std::thread::Builder::new().name(format!("slow-{index}")).spawn(move || {
                loop {
                    let job = receiver.lock().recv();
                    let Ok(job) = job else { return };
                    job();
                }
            })?;
        }
        Ok(Self { jobs: Mutex::new(sender) })
    }

    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let refused = self.jobs.lock().send(Box::new(job));
        if let Err(mpsc::SendError(job)) = refused {
            job();
        }
    }
}
