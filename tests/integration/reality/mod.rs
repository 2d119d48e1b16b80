//! The simulator against reality: the same requests at the same moments, once to real processes and once to the
//! simulator, and both measured by the simulator's own code.
//!
//! Nothing is asked of the clocks: a real run says when each request was sent and answered, on one clock, and the
//! simulator is given those very moments. What is left is that a busy machine answers late. Overshoot is measured by
//! when answers came, and in answers that are up to `late` seconds late there may be `rate * late` tokens that the
//! bucket has got meanwhile: they look like overshoot, and each run allows itself as many as its own latest answer
//! explains. News that a busy machine passes on late costs utilisation and refusals besides; that is stated with the
//! tests, and a run that disagrees may be repeated, while the promises themselves hold in every one.

mod arrivals;
mod central;
mod cluster;
mod store;
mod twin;

use tokio::sync::{Mutex, MutexGuard};

/// Tries at an agreement that a busy machine may spoil.
const TRIES: usize = 3;

/// One at a time: these runs are not to be each other's busy machine.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}
