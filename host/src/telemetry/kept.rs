//! A value that is read when somebody asks, and kept for a while: however many ask, and however often they give up before
//! the answer is there, it is read once at a time and once in that while.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

/// The value, when it was read.
#[derive(Debug)]
pub(super) struct Kept<T> {
    read: Arc<Mutex<Option<(Instant, T)>>>,
    good_for: Duration,
}

impl<T: Clone + Send + 'static> Kept<T> {
    pub(super) fn new(good_for: Duration) -> Self {
        Self { read: Arc::default(), good_for }
    }

    /// The value, reading it if it is too old. None when reading panicked.
    pub(super) async fn get(&self, reading: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (read, good_for) = (self.read.clone(), self.good_for);
        // A task of its own: whoever asks may be gone before it is read, and must not make the next one read again.
        let task = tokio::spawn(async move {
            let mut read = read.lock().await;
            if let Some((at, value)) = &*read
                && at.elapsed() < good_for
            {
                return value.clone();
            }
            let value = reading.await;
            *read = Some((Instant::now(), value.clone()));
            value
        });
        task.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// How often it is read when this many ask at once, of whom some give up at once.
    async fn reads(good_for: Duration, asking: usize, giving_up: usize) -> usize {
        let kept = Arc::new(Kept::new(good_for));
        let reads = Arc::new(AtomicUsize::new(0));
        let ask = |kept: Arc<Kept<usize>>, reads: Arc<AtomicUsize>| async move {
            let reading = async move {
                tokio::task::yield_now().await;
                reads.fetch_add(1, Ordering::Relaxed) + 1
            };
            kept.get(reading).await
        };
        for _ in 0..giving_up {
            let asked = tokio::spawn(ask(kept.clone(), reads.clone()));
            tokio::task::yield_now().await;
            asked.abort();
        }
        let answers: Vec<_> = (0..asking).map(|_| tokio::spawn(ask(kept.clone(), reads.clone()))).collect();
        for answer in answers {
            assert!(answer.await.unwrap().is_some());
        }
        reads.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn however_many_ask_it_is_read_once() {
        assert_eq!(reads(Duration::from_secs(3600), 50, 0).await, 1);
        assert_eq!(reads(Duration::from_secs(3600), 10, 50).await, 1, "whoever gives up has made it be read");
        assert_eq!(reads(Duration::ZERO, 5, 0).await, 5, "what is too old is read again");
    }

    #[tokio::test]
    async fn a_panic_is_no_value_and_the_next_one_reads() {
        let kept = Kept::new(Duration::from_secs(3600));
        assert_eq!(kept.get(async { if true { panic!("broken") } else { 1 } }).await, None);
        assert_eq!(kept.get(async { 2 }).await, Some(2));
    }
}
