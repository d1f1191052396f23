use super::*;

const GOLDEN: &str = include_str!("../../golden/hw2_net.json");

fn golden(case: &str) -> Reference {
    let mut reference = Reference::parse(GOLDEN).unwrap();
    reference.cases.retain(|other| other.name == case);
    assert_eq!(reference.cases.len(), 1);
    reference
}

/// Every tensor of `case` is within its limit on `target`.
fn passes(case: &str, target: Target) {
    let report = run(&golden(case), target).unwrap();
    let failed: Vec<&Row> = report.cases[0].rows.iter().filter(|row| !row.passed).collect();
    assert!(failed.is_empty(), "{}: {failed:#?}", report.device);
    // 2 losses, 2 logits, 28 gradients, 5 x 2 statistics.
    assert_eq!(report.cases[0].rows.len(), 4 + golden(case).cases[0].train.grad.len() + 10);
    assert!(report.passed);
}

#[test]
fn small_on_plain_f64() {
    passes("small", Target::PlainF64);
}

#[test]
fn small_on_plain_f32() {
    passes("small", Target::PlainF32);
}

#[test]
fn full_on_plain_f64() {
    passes("full", Target::PlainF64);
}

#[test]
fn small_on_cpu() {
    passes("small", Target::Cpu { threads: 2 });
}

#[test]
fn full_on_cpu() {
    passes("full", Target::Cpu { threads: 2 });
}
