//! Logarithm, exponential, power, sine and the normal quantile, from `+ - * /` and `sqrt` alone. It must not know what
//! they are for.
//!
//! The standard library leaves these to the platform, whose results differ in the last bit from system to system. A
//! run's decisions hang on them, and runs must repeat bit for bit; IEEE 754 fixes the five operations used here.

/// ln 2, the high part exact in few bits so that its multiples are exact too.
const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// The natural logarithm of a positive, finite, normal number, to about 1e-15; below that range, of the least such.
#[must_use]
pub fn ln(x: f64) -> f64 {
    let bits = x.max(f64::MIN_POSITIVE).to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let mut mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    // ln m = 2 atanh((m - 1) / (m + 1)), whose argument is at most 0.1716 here: the next term is below 1e-17
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let mut sum = 0.0;
    for odd in [21.0, 19.0, 17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        sum = sum * square + 1.0 / odd;
    }
    let exponent = f64::from(exponent);
    exponent * LN_2_HIGH + (2.0 * s * sum + exponent * LN_2_LOW)
}

/// `e^x`, to about 1e-15; x is taken to lie within -700 and 700.
#[must_use]
pub fn exp(x: f64) -> f64 {
    let x = x.clamp(-700.0, 700.0);
    let whole = (x / std::f64::consts::LN_2).round();
    let rest = (x - whole * LN_2_HIGH) - whole * LN_2_LOW;
    // |rest| is at most 0.3466: the next term is below 1e-17
    let mut sum = 1.0;
    for n in (1..=14).rev() {
        sum = 1.0 + sum * rest / f64::from(n);
    }
    sum * f64::from_bits(((whole as i64 + 1023) as u64) << 52)
}

/// `base^exponent` for a positive base.
#[must_use]
pub fn power(base: f64, exponent: f64) -> f64 {
    exp(exponent * ln(base))
}

/// The sine of an angle given in turns: 0.25 is a right angle.
#[must_use]
pub fn sine_of_turns(turns: f64) -> f64 {
    let turns = turns - turns.floor();
    // the quarter in which the angle lies, folded into -1/4 ..= 1/4 turn
    let folded = if turns < 0.25 {
        turns
    } else if turns < 0.75 {
        0.5 - turns
    } else {
        turns - 1.0
    };
    let x = folded * std::f64::consts::TAU;
    let square = x * x;
    let mut sum = 1.0;
    for n in (1..=10).rev() {
        let n = f64::from(n);
        sum = 1.0 - sum * square / (2.0 * n * (2.0 * n + 1.0));
    }
    x * sum
}

// numerators A, C, E and denominators B, D, F of the three ranges of the quantile, constants first
const A: [f64; 8] = [
    3.387_132_872_796_366_5,
    133.141_667_891_784_38,
    1_971.590_950_306_551_3,
    13_731.693_765_509_46,
    45_921.953_931_549_87,
    67_265.770_927_008_7,
    33_430.575_583_588_13,
    2_509.080_928_730_122_7,
];
const B: [f64; 8] = [
    1.0,
    42.313_330_701_600_91,
    687.187_007_492_057_9,
    5_394.196_021_424_751,
    21_213.794_301_586_597,
    39_307.895_800_092_71,
    28_729.085_735_721_943,
    5_226.495_278_852_545,
];
const C: [f64; 8] = [
    1.423_437_110_749_683_5,
    4.630_337_846_156_546,
    5.769_497_221_460_691,
    3.647_848_324_763_204_5,
    1.270_458_252_452_368_4,
    0.241_780_725_177_450_6,
    0.022_723_844_989_269_184,
    7.745_450_142_783_414e-4,
];
const D: [f64; 8] = [
    1.0,
    2.053_191_626_637_759,
    1.676_384_830_183_803_8,
    0.689_767_334_985_1,
    0.148_103_976_427_480_08,
    0.015_198_666_563_616_457,
    5.475_938_084_995_345e-4,
    1.050_750_071_644_416_9e-9,
];
const E: [f64; 8] = [
    6.657_904_643_501_103,
    5.463_784_911_164_114,
    1.784_826_539_917_291_3,
    0.296_560_571_828_504_87,
    0.026_532_189_526_576_124,
    0.001_242_660_947_388_078_4,
    2.711_555_568_743_487_6e-5,
    2.010_334_399_292_288_1e-7,
];
const F: [f64; 8] = [
    1.0,
    0.599_832_206_555_887_9,
    0.136_929_880_922_735_8,
    0.014_875_361_290_850_615,
    7.868_691_311_456_133e-4,
    1.846_318_317_510_054_8e-5,
    1.421_511_758_316_446e-7,
    2.044_263_103_389_939_8e-15,
];

/// The value below which a standard normal variable lies with probability `p`, 0 < p < 1.
///
/// Wichura's rational approximations (Applied Statistics algorithm AS 241, PPND16), to about 1e-15.
#[must_use]
pub fn normal_quantile(p: f64) -> f64 {
    let p = p.clamp(f64::MIN_POSITIVE, 1.0 - f64::EPSILON / 2.0);
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        return q * horner(&A, r) / horner(&B, r);
    }
    let tail = if q < 0.0 { p } else { 1.0 - p };
    let r = (-ln(tail)).sqrt();
    let value =
        if r <= 5.0 { horner(&C, r - 1.6) / horner(&D, r - 1.6) } else { horner(&E, r - 5.0) / horner(&F, r - 5.0) };
    if q < 0.0 { -value } else { value }
}

/// The polynomial with these coefficients, the constant one first.
fn horner(coefficients: &[f64; 8], x: f64) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)] // the platform's own functions are the yardstick here

    use super::*;
    use proptest::prelude::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= 4e-15 * b.abs().max(1.0)
    }

    proptest! {
        #[test]
        fn they_agree_with_the_platform(x in 1e-300..1e300f64, y in -600.0..600.0f64, t in -20.0..20.0f64) {
            prop_assert!(near(ln(x), x.ln()), "ln {x}: {} {}", ln(x), x.ln());
            prop_assert!(near(exp(y) / y.exp(), 1.0), "exp {y}");
            prop_assert!((sine_of_turns(t) - (t * std::f64::consts::TAU).sin()).abs() < 1e-13, "sin {t}");
        }

        #[test]
        fn the_quantile_is_odd_and_grows(p in 1e-12..0.5f64, step in 1e-6..0.1f64) {
            let (low, high) = (normal_quantile(p), normal_quantile(p + step));
            prop_assert!(low < high);
            prop_assert!((normal_quantile(1.0 - p) + low).abs() < 1e-4 * low.abs().max(1.0));
        }
    }

    #[test]
    fn the_quantile_has_the_values_of_the_tables() {
        for (p, z) in [
            (0.5, 0.0),
            (0.841_344_746_068_542_9, 1.0),
            (0.977_249_868_051_820_8, 2.0),
            (0.998_650_101_968_369_9, 3.0),
            (2.866_515_718_791_933e-7, -5.0),
            (9.865_876_450_376_946e-10, -6.0),
            (6.220_960_574_271_786e-16, -8.0),
        ] {
            assert!((normal_quantile(p) - z).abs() < 1e-11, "{p}: {} is not {z}", normal_quantile(p));
        }
    }

    /// Bit for bit: whoever changes these changes every seed's run.
    #[test]
    fn their_bits_stay() {
        let bits = [ln(10.0), exp(1.0), power(3.0, -1.1), sine_of_turns(0.1), normal_quantile(0.9)].map(f64::to_bits);
        let pinned = [
            4_612_367_379_483_415_830,
            4_613_303_445_314_885_482,
            4_599_051_670_832_410_319,
            4_603_469_518_431_672_926,
            4_608_450_414_325_689_652,
        ];
        assert_eq!(bits, pinned);
        assert_eq!(power(2.0, 10.0), 1024.0);
    }
}
