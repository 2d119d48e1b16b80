//! Random numbers of a run: one stream a purpose, all from one seed, and the distributions drawn from them. It must not
//! know what is drawn for.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::math;

/// What a stream is for. Streams of one seed are independent: how much one is used does not move another, so that all
/// strategies see the same arrivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// One source of requests.
    Workload(u32),
    /// Fates and delays of what one endpoint sends.
    Network(u32),
    /// News of membership.
    Membership,
    /// Phases of clocks and timers, at the start of each node.
    Nodes,
    /// Retries of clients.
    Clients,
    /// A strategy's own.
    Strategy,
    /// The drawing of a swarm's scenario.
    Swarm,
}

impl Purpose {
    const fn stream(self) -> u64 {
        let (kind, index) = match self {
            Self::Workload(i) => (1, i),
            Self::Network(i) => (2, i),
            Self::Membership => (3, 0),
            Self::Nodes => (4, 0),
            Self::Clients => (5, 0),
            Self::Strategy => (6, 0),
            Self::Swarm => (7, 0),
        };
        kind << 32 | index as u64
    }
}

/// A stream of random numbers: ChaCha with 8 rounds.
#[derive(Clone, Debug)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// The stream of a seed for a purpose.
    #[must_use]
    pub fn new(seed: u64, purpose: Purpose) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(purpose.stream());
        Self(rng)
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// From 0 to below 1, in steps of 2^-53.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// From 0 to below `n`; 0 for `n` = 0. Its unevenness, below n / 2^64, is beyond measure here.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(n)) >> 64) as u64
    }

    /// From `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least).saturating_add(1))
    }

    /// Whether something of this probability happens. Draws nothing when it is certain either way.
    pub fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && (probability >= 1.0 || self.unit() < probability)
    }

    /// Exponential with mean 1.
    pub fn exponential(&mut self) -> f64 {
        -math::ln(1.0 - self.unit())
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f64 {
        math::normal_quantile(self.unit() + 0.5 / (1u64 << 53) as f64)
    }
}

/// Picks indexes by weight in constant time (Walker's alias method, built as Vose does).
#[derive(Clone, Debug)]
pub struct Weighted(Vec<(f64, u32)>);

impl Weighted {
    /// Of weights that are finite and not negative; where all are 0, evenly. At most 2^32.
    #[must_use]
    pub fn new(weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        let n = weights.len();
        let scaled = |w: &f64| if total > 0.0 { w * n as f64 / total } else { 1.0 };
        let mut parts: Vec<f64> = weights.iter().map(scaled).collect();
        let mut table: Vec<(f64, u32)> = (0..n).map(|i| (1.0, i as u32)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..n).partition(|i| parts[*i] < 1.0);
        while let (Some(less), Some(more)) = (small.pop(), large.pop()) {
            table[less] = (parts[less], more as u32);
            parts[more] -= 1.0 - parts[less];
            if parts[more] < 1.0 { small.push(more) } else { large.push(more) }
        }
        Self(table)
    }

    /// The weights `1, 2^-skew, 3^-skew, ...` of a Zipf distribution over `n`.
    #[must_use]
    pub fn zipf(n: usize, skew: f64) -> Self {
        let weights: Vec<f64> = (1..=n).map(|rank| math::power(rank as f64, -skew)).collect();
        Self::new(&weights)
    }

    /// One of the indexes; one number is drawn.
    pub fn pick(&self, random: &mut Random) -> usize {
        let at = random.unit() * self.0.len() as f64;
        let place = (at as usize).min(self.0.len().saturating_sub(1));
        match self.0.get(place) {
            Some((part, _)) if at - (place as f64) < *part => place,
            Some((_, other)) => *other as usize,
            None => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_a_seed_differ_and_repeat() {
        let first = |purpose| Random::new(7, purpose).bits();
        assert_eq!(first(Purpose::Workload(0)), first(Purpose::Workload(0)));
        assert_ne!(first(Purpose::Workload(0)), first(Purpose::Workload(1)));
        assert_ne!(first(Purpose::Workload(1)), first(Purpose::Network(1)));
        assert_ne!(Random::new(7, Purpose::Nodes).bits(), Random::new(8, Purpose::Nodes).bits());
    }

    /// Pinned: another generator would make another run of every seed.
    #[test]
    fn the_stream_is_the_one_it_always_was() {
        let mut random = Random::new(1, Purpose::Workload(0));
        assert_eq!([random.bits(), random.bits()], PINNED);
    }

    const PINNED: [u64; 2] = [2_336_484_917_860_850_586, 12_249_943_944_079_794_431];

    #[test]
    fn means_and_spreads_are_right() {
        let mut random = Random::new(3, Purpose::Strategy);
        let n = 200_000;
        let mean = |f: &mut dyn FnMut() -> f64| (0..n).map(|_| f()).sum::<f64>() / f64::from(n);
        let exponential = mean(&mut || random.exponential());
        assert!((exponential - 1.0).abs() < 0.02, "{exponential}");
        let normal = mean(&mut || random.normal());
        assert!(normal.abs() < 0.02, "{normal}");
        let variance = mean(&mut || {
            let x = random.normal();
            x * x
        });
        assert!((variance - 1.0).abs() < 0.02, "{variance}");
        let below = mean(&mut || random.below(10) as f64);
        assert!((below - 4.5).abs() < 0.05, "{below}");
    }

    #[test]
    fn weights_are_met() {
        let mut random = Random::new(5, Purpose::Strategy);
        let weighted = Weighted::new(&[1.0, 0.0, 3.0, 6.0]);
        let mut counts = [0u32; 4];
        for _ in 0..100_000 {
            counts[weighted.pick(&mut random)] += 1;
        }
        for (count, part) in counts.iter().zip([0.1, 0.0, 0.3, 0.6]) {
            assert!((f64::from(*count) / 1e5 - part).abs() < 0.01, "{counts:?}");
        }
        let zipf = Weighted::zipf(3, 1.0);
        let first = (0..110_000).filter(|_| zipf.pick(&mut random) == 0).count() as f64 / 110_000.0;
        assert!((first - 6.0 / 11.0).abs() < 0.01, "{first}");
    }
}
