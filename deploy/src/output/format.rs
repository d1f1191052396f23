//! Figures as people read them.

use std::time::Duration;

/// `1,234,567`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A part of 1 with three decimals, as the original prints it: `0.874`.
pub(crate) fn fraction(right: u32, of: u32) -> String {
    if of == 0 { "-".into() } else { format!("{:.3}", f64::from(right) / f64::from(of)) }
}

/// Something per second: three digits are enough.
pub(crate) fn rate(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// `0.001`, `2.5e-5`: a setting or an error, at most three significant digits.
pub(crate) fn significant(value: f64) -> String {
    let rounded: f64 = format!("{value:.2e}").parse().expect("a number that was just printed");
    if rounded == 0.0 || (1e-3..1e4).contains(&rounded.abs()) {
        rounded.to_string()
    } else {
        format!("{rounded:e}")
    }
}

/// `0:07`, `12:34`, `3:02:01`.
pub(crate) fn duration(value: Duration) -> String {
    let seconds = value.as_secs_f64().round() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes}:{seconds:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        for (value, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (2_958_689, "2,958,689")] {
            assert_eq!(count(value), text);
        }
        assert_eq!((fraction(437, 500), fraction(0, 0)), ("0.874".into(), "-".into()));
        assert_eq!([rate(1234.5), rate(45.67), rate(3.456)], ["1234", "45.7", "3.46"]);
        for (value, text) in [
            (0.001, "0.001"),
            (0.000_5, "5e-4"),
            (0.000_031_25, "3.13e-5"),
            (0.0, "0"),
            (1.0, "1"),
            (12_345.0, "1.23e4"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(significant(value), text);
        }
    }

    #[test]
    fn durations() {
        for (millis, text) in [
            (0, "0:00"),
            (7_400, "0:07"),
            (59_600, "1:00"),
            (754_000, "12:34"),
            (10_921_000, "3:02:01"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }
}
