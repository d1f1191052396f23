//! Canonical images in memory, up to a limit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use hw2_common::dataset::Split;
use hw2_common::ids::SampleId;
use image::RgbImage;

/// What became of an image's bytes.
#[derive(Clone, Debug)]
pub(super) enum Decoded {
    /// Its canonical image.
    Good(Arc<RgbImage>),
    /// They cannot be decoded.
    Bad,
}

/// Keeps what was decoded first, until the limit is reached, and never gives it up: in every epoch
/// each image is asked for once, so no image is worth more than another.
#[derive(Debug)]
pub(super) struct Cache {
    limit_bytes: u64,
    used_bytes: AtomicU64,
    train: Vec<OnceLock<Decoded>>,
    val: Vec<OnceLock<Decoded>>,
}

impl Cache {
    pub(super) fn new(train: usize, val: usize, limit_bytes: u64) -> Self {
        let empty = |images| std::iter::repeat_with(OnceLock::new).take(images).collect();
        let used_bytes = AtomicU64::new(0);
        Self { limit_bytes, used_bytes, train: empty(train), val: empty(val) }
    }

    /// What is kept of an image.
    pub(super) fn get(&self, split: Split, sample: SampleId) -> Option<Decoded> {
        self.place(split, sample).get().cloned()
    }

    /// Keeps what became of an image, if there is room; whether that was news.
    pub(super) fn keep(&self, split: Split, sample: SampleId, decoded: &Decoded) -> bool {
        let bytes = match decoded {
            Decoded::Good(image) => image.as_raw().len() as u64,
            Decoded::Bad => 0,
        };
        let more = |used: u64| Some(used + bytes).filter(|&used| used <= self.limit_bytes);
        // Relaxed: the number alone is shared; the images are published by their OnceLocks.
        if self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return false;
        }
        let is_news = self.place(split, sample).set(decoded.clone()).is_ok();
        if !is_news {
            self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        is_news
    }

    /// Number of canonical images that are kept.
    pub(super) fn good_images(&self, split: Split) -> u32 {
        let kept = self.places(split).iter();
        kept.filter(|place| matches!(place.get(), Some(Decoded::Good(_)))).count() as u32
    }

    fn place(&self, split: Split, sample: SampleId) -> &OnceLock<Decoded> {
        &self.places(split)[sample.0 as usize]
    }

    fn places(&self, split: Split) -> &[OnceLock<Decoded>] {
        match split {
            Split::Train => &self.train,
            Split::Val => &self.val,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(bytes: u32) -> Decoded {
        Decoded::Good(Arc::new(RgbImage::new(bytes / 3, 1)))
    }

    #[test]
    fn it_fills_up_to_its_limit_and_keeps_the_first() {
        let cache = Cache::new(3, 1, 100);
        assert!(cache.keep(Split::Train, SampleId(0), &image(60)));
        assert!(!cache.keep(Split::Train, SampleId(0), &image(30)), "it is there");
        assert!(!cache.keep(Split::Train, SampleId(1), &image(60)), "no room");
        assert!(cache.keep(Split::Train, SampleId(2), &Decoded::Bad));
        assert!(cache.keep(Split::Val, SampleId(0), &image(39)), "the second try took no room");
        let Some(Decoded::Good(first)) = cache.get(Split::Train, SampleId(0)) else { panic!() };
        assert_eq!(first.width(), 20);
        assert!(cache.get(Split::Train, SampleId(1)).is_none());
        assert!(matches!(cache.get(Split::Train, SampleId(2)), Some(Decoded::Bad)));
        assert_eq!((cache.good_images(Split::Train), cache.good_images(Split::Val)), (1, 1));
    }
}
