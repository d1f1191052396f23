//! Every config key with its class.

/// What a change of a key does to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Changes the result: fingerprinted, and fixed for the life of a run.
    Run,
    /// When to end: may change on resume.
    Stop,
    /// Paths, ports, threads, time limits: never changes the result.
    Place,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Dotted path; `model` stands for the whole section.
    pub name: &'static str,
    /// What a change of it does.
    pub class: Class,
}

const fn key(name: &'static str, class: Class) -> Key {
    Key { name, class }
}

/// All keys, in the order in which `hw2 config` prints them.
pub const KEYS: &[Key] = &[
    key("seed", Class::Run),
    key("replicas", Class::Run),
    key("batch_size", Class::Run),
    key("checkpoint_every", Class::Run),
    key("max_steps", Class::Stop),
    key("stop_patience", Class::Stop),
    key("on_non_finite", Class::Run),
    key("data", Class::Place),
    key("run_dir", Class::Place),
    key("listen", Class::Place),
    key("threads", Class::Place),
    key("model", Class::Run),
    key("images.short_side", Class::Run),
    key("images.crop_min", Class::Run),
    key("images.crop_max", Class::Run),
    key("images.mirror", Class::Run),
    key("images.mirror_vertical", Class::Run),
    key("images.brightness", Class::Run),
    key("images.contrast_min", Class::Run),
    key("images.contrast_max", Class::Run),
    key("images.rotation_degrees", Class::Run),
    key("images.quarter_turns", Class::Run),
    key("images.scale", Class::Run),
    key("images.shift", Class::Run),
    key("images.salt_pepper", Class::Run),
    key("images.bad_images_max", Class::Stop),
    key("optimizer.learning_rate", Class::Run),
    key("optimizer.beta1", Class::Run),
    key("optimizer.beta2", Class::Run),
    key("optimizer.epsilon", Class::Run),
    key("optimizer.ema_decay_max", Class::Run),
    key("optimizer.bn_momentum", Class::Run),
    key("optimizer.lr_patience", Class::Run),
    key("optimizer.min_delta", Class::Run),
    key("cluster.heartbeat_interval_ms", Class::Place),
    key("cluster.heartbeat_timeout_ms", Class::Place),
    key("cluster.assignment_timeout_ms", Class::Place),
    key("cluster.pull_wait_ms", Class::Place),
    key("cluster.push_window", Class::Place),
    key("cluster.keep_checkpoints", Class::Place),
    key("cluster.allow_mixed", Class::Place),
    key("cluster.image_cache_mib", Class::Place),
    key("cluster.grace_ms", Class::Place),
];

/// The class of the value at `path`, which is a key or lies inside one.
pub(crate) fn class_of(path: &str) -> Class {
    let holds = |key: &&Key| {
        path.strip_prefix(key.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    KEYS.iter().find(holds).expect("every value of a config has a key").class
}
