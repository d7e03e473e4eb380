//! Holding off the next era for commits that it would send back once more; see [`Looked`](super::looked::Looked).
//!
//! A commit whose blocks are looked for while an era begins has to look again. So that this happens once and not for ever,
//! it *holds* while it looks again: eras wait. So that nobody holds them off for ever, they wait for those that hold when
//! they come, and nobody else begins to hold until they have begun; and not longer than [`HOLD_MAX`].

use super::Result;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// A commit that has not been looked at within this may be sent back again.
pub const HOLD_MAX: Duration = Duration::from_secs(600);
/// How often whoever waits for commits looks whether they are through.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Debug, Default)]
pub struct Holds {
    state: Mutex<State>,
    /// Rings when an era has begun.
    begun: Notify,
}

#[derive(Debug, Default)]
struct State {
    holding: usize,
    /// An era is about to begin.
    begins: bool,
}

/// Until it is dropped, no era begins.
#[derive(Debug)]
pub struct Hold(Arc<Holds>);

/// Until it is dropped, nobody begins to hold.
#[derive(Debug)]
pub struct Begins<'a>(&'a Holds);

impl Holds {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the era begin that waits, if one does, and holds off the next.
    ///
    /// # Cancel safety
    /// Nothing is held before it returns.
    pub async fn hold(self: &Arc<Self>) -> Hold {
        loop {
            let begun = self.begun.notified();
            tokio::pin!(begun);
            // Before the look, or the ring may fall between the two.
            begun.as_mut().enable();
            {
                let mut state = self.lock();
                if !state.begins {
                    state.holding += 1;
                    return Hold(self.clone());
                }
            }
            begun.await;
        }
    }

    /// Waits until an era may begin. Blocks; `pace` is called meanwhile and can end it. For one at a time.
    pub fn begin(&self, pace: &mut dyn FnMut() -> Result<()>) -> Result<Begins<'_>> {
        self.begin_within(HOLD_MAX, pace)
    }

    fn begin_within(&self, patience: Duration, pace: &mut dyn FnMut() -> Result<()>) -> Result<Begins<'_>> {
        let since = Instant::now();
        self.lock().begins = true;
        let begins = Begins(self);
        while self.lock().holding > 0 {
            if since.elapsed() >= patience {
                tracing::warn!("a commit is being looked at for very long; it will be looked at again");
                break;
            }
            pace()?;
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(begins)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.lock().holding -= 1;
    }
}

impl Drop for Begins<'_> {
    fn drop(&mut self) {
        self.0.lock().begins = false;
        self.0.begun.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::StorageError;
    use std::task::{Context, Poll, Waker};

    fn is_held<F: Future<Output = Hold>>(hold: std::pin::Pin<&mut F>) -> Option<Hold> {
        match hold.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(hold) => Some(hold),
            Poll::Pending => None,
        }
    }

    #[test]
    fn an_era_waits_for_who_holds_and_who_comes_then_waits_for_it() {
        let holds = Arc::new(Holds::default());
        let mut early = is_held(std::pin::pin!(holds.hold()));
        assert!(early.is_some());
        let mut late = std::pin::pin!(holds.hold());
        let mut waited = 0;
        let mut pace = || {
            waited += 1;
            assert!(is_held(late.as_mut()).is_none(), "it would hold off the era for ever");
            if waited == 3 {
                drop(early.take());
            }
            Ok(())
        };
        let begins = holds.begin(&mut pace).unwrap();
        assert_eq!(waited, 3);
        assert!(is_held(late.as_mut()).is_none());
        drop(begins);
        assert!(is_held(late.as_mut()).is_some());
        assert_eq!(holds.lock().holding, 0);
    }

    #[test]
    fn nobody_is_waited_for_longer_than_so_long_nor_when_the_work_is_ended() {
        let holds = Arc::new(Holds::default());
        let _hold = is_held(std::pin::pin!(holds.hold())).unwrap();
        assert!(matches!(holds.begin(&mut || Err(StorageError::Stopped)), Err(StorageError::Stopped)));
        assert!(is_held(std::pin::pin!(holds.hold())).is_some(), "no era begins any more");
        drop(holds.begin_within(Duration::from_millis(20), &mut || Ok(())).unwrap());
    }
}
