//! How a rate goes over time, in pieces in which it is constant. It must not know requests.

use spillgate_core::time::Nanos;

use crate::math;
use crate::random::Random;
use crate::scenario::Shape;

/// Pieces that a day or a ramp is cut into.
const STEPS: u64 = 100;

/// A shape's pieces, one after the other.
#[derive(Debug)]
pub(super) struct Course<'s> {
    shape: &'s Shape,
    base: f64,
    /// The shape begins so far into itself.
    phase: Nanos,
    /// Where the present piece ends, and its rate a second.
    pub until: Nanos,
    pub rate: f64,
    on: bool,
}

impl<'s> Course<'s> {
    /// Starts at time 0. `phase`, from 0 to 1, is how far into its cycle; a flash comes later by that many of its own
    /// lengths.
    pub fn new(shape: &'s Shape, base: f64, phase: f64, random: &mut Random) -> Self {
        let cycle = match shape {
            Shape::OnOff { on, off, .. } => on.plus(*off),
            Shape::Diurnal { period, .. } => *period,
            Shape::Steady | Shape::Flash { .. } | Shape::Trace(_) => Nanos::ZERO,
        };
        let phase = Nanos((cycle.0 as f64 * phase) as u64);
        let mut course = Self { shape, base, phase, until: Nanos::ZERO, rate: 0.0, on: false };
        course.advance(random);
        course
    }

    /// Goes to the next piece.
    pub fn advance(&mut self, random: &mut Random) {
        let at = self.until;
        (self.rate, self.until) = match *self.shape {
            Shape::Steady => (self.base, Nanos::MAX),
            Shape::OnOff { on, off, random: drawn } => self.switch(at, (on, off), drawn, random),
            Shape::Diurnal { period, amplitude } => self.day(at, period, amplitude),
            Shape::Flash { at: from, lasts, factor, ramp } => self.flash(at, (from, lasts, ramp), factor),
            Shape::Trace(_) => (0.0, Nanos::MAX),
        };
    }

    fn switch(&mut self, at: Nanos, (on, off): (Nanos, Nanos), drawn: bool, random: &mut Random) -> (f64, Nanos) {
        if drawn {
            // the first is on or off as often as it is in the long run
            self.on =
                if at == Nanos::ZERO { random.happens(on.0 as f64 / (on.0 as f64 + off.0 as f64)) } else { !self.on };
            let mean = if self.on { on } else { off };
            let lasts = Nanos((mean.0 as f64 * random.exponential()) as u64).max(Nanos(1));
            return (if self.on { self.base } else { 0.0 }, at.plus(lasts));
        }
        let within = (at.0 + self.phase.0) % (on.0 + off.0);
        if within < on.0 {
            (self.base, at.plus(Nanos(on.0 - within)))
        } else {
            (0.0, at.plus(Nanos(on.0 + off.0 - within)))
        }
    }

    fn day(&self, at: Nanos, period: Nanos, amplitude: f64) -> (f64, Nanos) {
        let step = (period.0 / STEPS).max(1);
        let place = (at.0 + self.phase.0) / step;
        let middle = (place as f64 + 0.5) * step as f64 / period.0 as f64;
        let rate = self.base * (1.0 + amplitude * math::sine_of_turns(middle));
        (rate.max(0.0), Nanos(((place + 1) * step).saturating_sub(self.phase.0).max(at.0 + 1)))
    }

    fn flash(&self, at: Nanos, (from, lasts, ramp): (Nanos, Nanos, Nanos), factor: f64) -> (f64, Nanos) {
        let (up, down) = (from.plus(ramp), from.plus(lasts));
        let end = down.plus(ramp);
        if at < from {
            return (self.base, from);
        }
        if at >= end {
            return (self.base, Nanos::MAX);
        }
        if at >= up && at < down {
            return (self.base * factor, down);
        }
        // on the way up, or down
        let (begin, towards) = if at < up.min(down) { (from, 1.0) } else { (down, -1.0) };
        let step = (ramp.0 / STEPS).max(1);
        let place = (at.0 - begin.0) / step;
        let part = ((place as f64 + 0.5) * step as f64 / ramp.0 as f64).min(1.0);
        let height = if towards > 0.0 { part } else { 1.0 - part };
        let next = Nanos(begin.0 + (place + 1) * step).min(if towards > 0.0 { up.min(down) } else { end });
        (self.base * (1.0 + (factor - 1.0) * height), next)
    }
}
