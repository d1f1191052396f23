//! What is drawn, and that each decision does what it says.

use hw2_common::ids::{Epoch, SampleId};
use image::Rgb;

use super::super::tests::picture;
use super::*;

const SIZE: (u32, u32) = (347, 260);

fn stream(sample: u32) -> Stream {
    Stream::augmentation(1, Epoch(0), SampleId(sample))
}

fn draw(sample: u32, images: &Images) -> Augmentation {
    Augmentation::draw(&stream(sample), images, SIZE)
}

fn everything() -> Images {
    Images {
        mirror_vertical: true,
        rotation_degrees: 15.0,
        quarter_turns: true,
        scale: 0.1,
        shift: 0.05,
        salt_pepper: 0.02,
        ..Images::default()
    }
}

#[test]
fn draws_reach_the_ends_of_their_ranges_and_stay_within() {
    let draws: Vec<Augmentation> = (0..20_000).map(|s| draw(s, &everything())).collect();
    let check = |value: &dyn Fn(&Augmentation) -> f64, low: f64, high: f64, slack: f64| {
        let values = || draws.iter().map(value);
        let (min, max) = (values().fold(f64::MAX, f64::min), values().fold(f64::MIN, f64::max));
        assert!(min >= low && min <= low + slack, "{min} in {low}..={high}");
        assert!(max <= high && max >= high - slack, "{max} in {low}..={high}");
    };
    check(&|a| a.square.side.into(), 200.0, 260.0, 0.0);
    check(&|a| (a.square.top + a.square.side).into(), 200.0, 260.0, 0.0);
    check(&|a| (a.square.left + a.square.side).into(), 200.0, 347.0, 0.0);
    check(&|a| a.square.left.into(), 0.0, 147.0, 4.0);
    check(&|a| a.colours.brightness.into(), -63.0, 63.0, 0.1);
    check(&|a| f64::from(a.colours.contrast), 0.2f32.into(), 1.8f32.into(), 0.01);
    check(&|a| a.warp.rotation.into(), -15.0, 15.0, 0.1);
    check(&|a| a.warp.scale.into(), 0.9f32.into(), 1.1f32.into(), 0.01);
    check(&|a| a.warp.shift[0].into(), -0.05f32 as f64, 0.05f32.into(), 0.01);
    check(&|a| a.warp.quarter_turns.into(), 0.0, 3.0, 0.0);
    let mirrored = draws.iter().filter(|a| a.mirror).count();
    let upside_down = draws.iter().filter(|a| a.warp.mirror_vertical).count();
    for half in [mirrored, upside_down] {
        assert!((9_700..10_300).contains(&half), "{half} of 20,000");
    }
}

#[test]
fn options_do_not_disturb_each_others_draws() {
    let all = everything();
    for sample in 0..50 {
        let with_all = draw(sample, &all);
        let plain = draw(sample, &Images::default());
        assert_eq!(plain.warp, Warp::NOTHING);
        assert_eq!(Augmentation { warp: Warp::NOTHING, ..with_all.clone() }, plain);
        let no_mirror = draw(sample, &Images { mirror: false, ..Images::default() });
        assert_eq!(Augmentation { mirror: plain.mirror, ..no_mirror }, plain);
        let only_turns = Images { quarter_turns: true, ..Images::default() };
        let expected = Warp { quarter_turns: with_all.warp.quarter_turns, ..Warp::NOTHING };
        assert_eq!(draw(sample, &only_turns).warp, expected);
        let only_shift = Images { shift: 0.05, ..Images::default() };
        let expected = Warp { shift: with_all.warp.shift, ..Warp::NOTHING };
        assert_eq!(draw(sample, &only_shift).warp, expected);
    }
}

#[test]
fn no_two_decisions_share_a_word() {
    let words = [
        word::SIDE,
        word::TOP,
        word::LEFT,
        word::MIRROR,
        word::BRIGHTNESS,
        word::CONTRAST,
        word::MIRROR_VERTICAL,
        word::QUARTER_TURNS,
        word::ROTATION,
        word::SCALE,
        word::SHIFT_DOWN,
        word::SHIFT_RIGHT,
    ];
    let distinct: std::collections::BTreeSet<u32> = words.into_iter().collect();
    assert_eq!(distinct.len(), words.len());
    assert!(words.into_iter().all(|word| word < word::SALT_PEPPER));
}

fn applied(change: impl FnOnce(&mut Augmentation)) -> Vec<f32> {
    let mut augmentation = Augmentation {
        square: Square { top: 2, left: 7, side: 24 },
        warp: Warp::NOTHING,
        mirror: false,
        colours: Colours { brightness: 5.0, contrast: 0.7 },
    };
    change(&mut augmentation);
    let mut out = vec![0.0; 12 * 12 * 3];
    augmentation.photo(&Arc::new(picture(31, 43)), &stream(0)).finish(12, &mut out);
    out
}

/// The pixel of an output image (12, 12, 3).
fn at(image: &[f32], x: usize, y: usize) -> [f32; 3] {
    let start = (y * 12 + x) * 3;
    [image[start], image[start + 1], image[start + 2]]
}

/// Whether output pixel (x, y) is plain pixel `from(x, y)`, up to the order of sums.
fn assert_moved(image: &[f32], from: impl Fn(usize, usize) -> (usize, usize)) {
    let plain = applied(|_| {});
    for (x, y) in (0..144).map(|index| (index % 12, index / 12)) {
        let (from_x, from_y) = from(x, y);
        for (found, expected) in at(image, x, y).into_iter().zip(at(&plain, from_x, from_y)) {
            assert!((found - expected).abs() < 1e-4, "({x}, {y}): {found} and not {expected}");
        }
    }
}

#[test]
fn mirrors_and_quarter_turns_move_pixels() {
    assert_moved(&applied(|a| a.mirror = true), |x, y| (11 - x, y));
    assert_moved(&applied(|a| a.warp.mirror_vertical = true), |x, y| (x, 11 - y));
    assert_moved(&applied(|a| a.warp.quarter_turns = 1), |x, y| (y, 11 - x));
    assert_moved(&applied(|a| a.warp.quarter_turns = 2), |x, y| (11 - x, 11 - y));
    assert_moved(&applied(|a| a.warp.quarter_turns = 3), |x, y| (11 - y, x));
}

#[test]
fn a_rotation_by_90_degrees_is_a_quarter_turn() {
    assert_moved(&applied(|a| a.warp.rotation = 90.0), |x, y| (y, 11 - x));
}

/// The top left pixel of `warp` of a square of a picture whose pixel (x, y) is (x, y, 0).
fn source_of(warp: Warp, x: u32, y: u32) -> [u8; 3] {
    let coordinates = RgbImage::from_fn(200, 100, |x, y| Rgb([x as u8, y as u8, 0]));
    let square = Square { top: 20, left: 60, side: 40 };
    warp.apply(&coordinates, square, &stream(0)).get_pixel(x, y).0
}

#[test]
fn shift_and_scale_look_up_where_a_pixel_comes_from() {
    let nothing = Warp::NOTHING;
    assert_eq!(source_of(nothing, 3, 5), [63, 25, 0]);
    let shifted = Warp { shift: [0.25, -0.5], ..nothing };
    assert_eq!(source_of(shifted, 3, 5), [83, 15, 0]);
    // Twice as large: pixel centre 3.5 lies 16.5 left of the centre, and came from 8.25 left of it.
    let scaled = Warp { scale: 2.0, ..nothing };
    assert_eq!(source_of(scaled, 3, 39), [71, 49, 0]);
    // Beyond the image its edge goes on.
    let far = Warp { shift: [3.0, 3.0], ..nothing };
    assert_eq!(source_of(far, 0, 0), [0, 0, 0]);
}

#[test]
fn salt_and_pepper_turns_its_part_of_the_pixels_black_or_white() {
    let grey = RgbImage::from_pixel(200, 200, Rgb([128; 3]));
    let square = Square::central(&grey);
    let noisy = Warp { salt_pepper: 0.1, ..Warp::NOTHING }.apply(&grey, square, &stream(0));
    let count = |value: u8| noisy.pixels().filter(|pixel| pixel.0 == [value; 3]).count();
    let (black, white) = (count(0), count(255));
    assert_eq!(black + white + count(128), 40_000);
    for half in [black, white] {
        assert!((1_850..2_150).contains(&half), "{half} of 40,000");
    }
}
