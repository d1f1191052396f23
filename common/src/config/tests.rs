use std::fs;
use std::path::PathBuf;

use super::*;
use crate::model::Block;

/// A file in a folder of its own, so that messages can be compared whole.
struct JobFile(tempfile::TempDir);

impl JobFile {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("job.toml"), text).unwrap();
        Self(dir)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("job.toml")
    }

    fn layers(&self) -> Layers {
        Layers { file: Some(self.path()), ..Layers::default() }
    }

    fn load(&self) -> Resolved {
        self.layers().load().unwrap()
    }

    /// What is wrong, with the file as `job.toml`.
    fn problems(&self, profile: Option<&str>) -> Vec<String> {
        let layers = Layers { profile: profile.map(str::to_owned), ..self.layers() };
        let folder = format!("{}/", self.0.path().display());
        let problems = layers.load().unwrap_err().problems;
        problems.iter().map(|problem| problem.replace(&folder, "")).collect()
    }
}

fn environment_of(variables: &[(&str, &str)]) -> Layers {
    let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
    Layers { environment: variables.iter().map(owned).collect(), ..Layers::default() }
}

fn flag(name: &str, key: &str, value: &str) -> Flag {
    Flag { name: name.into(), key: key.into(), value: value.into() }
}

#[test]
fn without_layers_all_is_default() {
    let resolved = Layers::default().load().unwrap();
    assert_eq!(resolved.config, Config::default());
    assert!(keys().all(|key| *resolved.source(key.name) == Source::Default));
}

#[test]
fn each_layer_wins_over_those_before_it_and_every_value_knows_its_source() {
    let file = JobFile::new(
        "seed = 10\nreplicas = 10\nbatch_size = 10\nmax_steps = 10\n\n[profile.big]\n\
         replicas = 20\nbatch_size = 20\nmax_steps = 20\n\
         [profile.big.optimizer]\nlearning_rate = 1\n",
    );
    let mut layers = Layers { profile: Some("big".into()), ..file.layers() };
    layers.environment = environment_of(&[
        ("HW2_BATCH_SIZE", "30"),
        ("HW2_MAX_STEPS", "30"),
        ("HW2_OPTIMIZER__BETA1", "0.5"),
        ("PATH", "/bin"),
        ("HW2_PS_SERVICE_HOST", "10.0.0.1"),
        ("HW2_PS_PORT_50051_TCP_ADDR", "10.0.0.1"),
    ])
    .environment;
    layers.flags = vec![flag("--steps", "max_steps", "40"), flag("--data", "data", "7")];
    let resolved = layers.load().unwrap();
    let Config { seed, replicas, batch_size, max_steps, data, optimizer, .. } = &resolved.config;
    assert_eq!((*seed, *replicas, *batch_size, *max_steps), (10, 20, 30, 40));
    assert_eq!((optimizer.learning_rate, optimizer.beta1, data.as_str()), (1.0, 0.5, "7"));
    let source = |key| resolved.source(key).to_string();
    let path = file.path().display().to_string();
    assert_eq!(source("seed"), format!("{path}:1"));
    assert_eq!(source("replicas"), format!("{path}:7 [profile.big]"));
    assert_eq!(source("optimizer.learning_rate"), format!("{path}:11 [profile.big]"));
    assert_eq!(source("batch_size"), "environment HW2_BATCH_SIZE");
    assert_eq!(source("max_steps"), "flag --steps");
    assert_eq!(source("threads"), "default");
}

#[test]
fn rows_are_what_a_person_would_write() {
    let layers = Layers { flags: vec![flag("--seed", "seed", "3")], ..Layers::default() };
    let rows = layers.load().unwrap().rows();
    let row = |key: &str| rows.iter().find(|row| row.key == key).unwrap();
    assert_eq!(row("seed").value, "3");
    assert_eq!(row("seed").source, "flag --seed");
    assert_eq!(row("images.contrast_min").value, "0.2");
    assert_eq!(row("optimizer.epsilon").value, "1e-8");
    assert_eq!(row("optimizer.learning_rate").value, "0.001");
    assert_eq!(row("on_non_finite").value, "\"stop\"");
    assert_eq!(row("max_steps").class, Class::Stop);
    assert!(row("model.blocks").value.starts_with("conv_stack1, pool1, inception2, "));
    assert!(
        row("optimizer.lr_patience")
            .doc
            .ends_with("after each further one, the learning rate halves.")
    );
    assert_eq!(rows.len(), keys().count());
}

#[test]
fn a_config_survives_its_own_file() {
    let mut config = Config {
        seed: i64::MAX as u64,
        precision: Precision::Bf16,
        on_non_finite: NonFinite::Skip,
        data: "a \"quoted\" \\ path\n".into(),
        ..Config::default()
    };
    config.optimizer.learning_rate = 0.1 + 0.2;
    config.optimizer.epsilon = f64::from(f32::MIN_POSITIVE);
    config.images.contrast_min = 0.1 + 0.2;
    config.model.image_size = 28;
    config.model.blocks.remove(4);
    let Block::Dense { weight_decay, .. } = &mut config.model.blocks[7] else { panic!() };
    *weight_decay = 0.1 + 0.2;
    assert_eq!(JobFile::new(&config.to_toml()).load().config, config);
}

#[test]
fn an_image_size_alone_keeps_the_blocks_and_blocks_replace_all_of_them() {
    let default = Config::default().model;
    let model = JobFile::new("[model]\nimage_size = 28").load().config.model;
    assert_eq!((model.image_size, &model.blocks), (28, &default.blocks));
    let blocks = "[[model.blocks]]\nkind = 'dense'\nname = 'd'\nunits = 3\nkeep = 1\n\
                  weight_decay = 0\n[[model.blocks]]\nkind = 'softmax_linear'\nname = 's'\n";
    let expected = [
        Block::Dense { name: "d".into(), units: 3, keep: 1.0, weight_decay: 0.0 },
        Block::SoftmaxLinear { name: "s".into() },
    ];
    let model = JobFile::new(blocks).load().config.model;
    assert_eq!((model.image_size, &model.blocks[..]), (default.image_size, &expected[..]));
    let inline = "[{ kind = 'softmax_linear', name = 's' }]";
    let layers = environment_of(&[("HW2_MODEL__BLOCKS", inline), ("HW2_MODEL__IMAGE_SIZE", "9")]);
    let model = layers.load().unwrap().config.model;
    assert_eq!((model.image_size, &model.blocks[..]), (9, &expected[1..]));
}

#[test]
fn unknown_keys_are_named_wherever_they_are() {
    let file = JobFile::new(
        "batchsize = 3\nlearning_rate = 1\n[optimiser]\n[images.crop]\nmin = 3\n\
         [profile.big]\nreplica = 3\n",
    );
    assert_eq!(
        file.problems(None),
        [
            "job.toml:1: unknown key `batchsize`; did you mean `batch_size`?",
            "job.toml:2: unknown key `learning_rate`; did you mean `optimizer.learning_rate`?",
            "job.toml:3: unknown key `optimiser`; did you mean `optimizer`?",
            "job.toml:4: unknown key `images.crop`; did you mean `images.crop_min`?",
            "job.toml:7 [profile.big]: unknown key `replica`; did you mean `replicas`?",
        ]
    );
    let mut layers = environment_of(&[("HW2_LEARNING_RATE", "1"), ("HW2_seed", "1")]);
    layers.flags = vec![flag("--set", "sed", "1")];
    assert_eq!(
        layers.load().unwrap_err().problems,
        [
            "environment HW2_LEARNING_RATE: no key has this variable; did you mean \
             HW2_OPTIMIZER__LEARNING_RATE?",
            "environment HW2_seed: no key has this variable; did you mean HW2_SEED?",
            "flag --set: unknown key `sed`; did you mean `seed`?",
        ]
    );
}

#[test]
fn wrong_types_name_key_value_type_and_source() {
    let file = JobFile::new(
        "seed = 'one'\nreplicas = 1.5\noptimizer = 3\nthreads = { a = 1 }\n\
         on_non_finite = 'go on'\nmax_steps = 99999999999999999999\n[images]\nmirror = 1\n\
         [profile.big.optimizer]\nlearning_rate = true\n",
    );
    assert_eq!(
        file.problems(Some("big")),
        [
            "job.toml:3: optimizer is a section: [optimizer], its keys below it",
            "job.toml:6: max_steps = 99999999999999999999 must be an integer from 1 to 4294967295",
            "job.toml:1: seed = \"one\" must be an integer of at least 0",
            "job.toml:2: replicas = 1.5 must be an integer from 1 to 65535",
            "job.toml:4: threads = { a = 1 } must be an integer from 0 to 4096",
            "job.toml:5: on_non_finite = \"go on\" must be one of stop, skip",
            "job.toml:8: images.mirror = 1 must be true or false",
            "job.toml:10 [profile.big]: optimizer.learning_rate = true must be a finite number \
             above 0",
        ]
    );
    let layers = environment_of(&[("HW2_SEED", "one"), ("HW2_IMAGES__MIRROR", "yes")]);
    assert_eq!(
        layers.load().unwrap_err().problems,
        [
            "environment HW2_SEED: seed = \"one\" must be an integer of at least 0",
            "environment HW2_IMAGES__MIRROR: images.mirror = \"yes\" must be true or false",
        ]
    );
}

#[test]
fn a_profile_must_be_there() {
    let file = JobFile::new("[profile.big]\nseed = 2\n[profile.small]\nseed = 3\n");
    assert_eq!(file.problems(Some("bog")), ["job.toml: no profile `bog`; there are big, small"]);
    assert_eq!(
        JobFile::new("").problems(Some("big")),
        ["job.toml: no profile `big`; there are none: write a section [profile.big]"]
    );
    let layers = Layers { profile: Some("big".into()), ..Layers::default() };
    assert_eq!(
        layers.load().unwrap_err().to_string(),
        "profile `big` without a config file: give the file that has it"
    );
    assert_eq!(
        JobFile::new("profile = 3").problems(None),
        ["job.toml:1: profile holds tables only: [profile.NAME]"]
    );
    assert_eq!(
        JobFile::new("[profile]\nbig = 3").problems(None),
        ["job.toml:2: profile.big must be a table: [profile.big]"]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let gone = Layers { file: Some("gone/job.toml".into()), ..Layers::default() };
    let error = gone.load().unwrap_err().to_string();
    assert!(error.starts_with("cannot read config file gone/job.toml: No such file"), "{error}");
    let problems = JobFile::new("seed = 1\nreplicas = [\n").problems(None);
    assert!(problems[0].starts_with("job.toml: TOML parse error at line 2"), "{problems:?}");
    let twice = JobFile::new("seed = 1\nseed = 2\n").problems(None);
    assert!(twice[0].contains("duplicate key"), "{twice:?}");
}

#[test]
fn values_that_do_not_fit_together_name_both_and_their_sources() {
    let file = JobFile::new("[images]\ncrop_min = 250\ncrop_max = 240\n");
    assert_eq!(
        file.problems(None),
        ["images.crop_min = 250 is above images.crop_max = 240: lower the first or raise the \
          second (images.crop_min: job.toml:2; images.crop_max: job.toml:3)"]
    );
    let small = JobFile::new("[images]\nshort_side = 28\ncrop_min = 24\n");
    assert_eq!(
        small.problems(None),
        ["images.crop_max = 260 is above images.short_side = 28: lower the first or raise the \
          second (images.crop_max: default; images.short_side: job.toml:2)"]
    );
    let model = JobFile::new(
        "[[model.blocks]]\nkind = 'max_pool'\nname = 'p'\nkernel_size = 3\nstride = 2\n",
    );
    assert_eq!(
        model.problems(None),
        ["job.toml:1: model: the last block must be of kind softmax_linear"]
    );
}

#[test]
fn a_config_made_in_code_is_held_to_the_same_rules() {
    let problems = |change: &dyn Fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        config.validate().err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(problems(&|_| ()), "");
    assert_eq!(
        problems(&|c| c.optimizer.learning_rate = -1e-3),
        "optimizer.learning_rate = -0.001 must be a finite number above 0"
    );
    assert_eq!(
        problems(&|c| c.optimizer.learning_rate = f64::NAN),
        "optimizer.learning_rate = NaN must be a finite number above 0"
    );
    assert_eq!(
        problems(&|c| c.batch_size = 0),
        "batch_size = 0 must be an integer from 1 to 65536"
    );
    assert_eq!(
        problems(&|c| (c.replicas, c.checkpoint_every) = (65_536, 0)),
        "replicas = 65536 must be an integer from 1 to 65535\n\
         checkpoint_every = 0 must be an integer from 1 to 4294967295"
    );
    assert_eq!(
        problems(&|c| c.seed = u64::MAX),
        "no integer may be above 9223372036854775807, neither seed = 18446744073709551615 nor a \
         size"
    );
    assert!(problems(&|c| c.images.contrast_max = 0.1).contains("contrast_min = 0.2 is above"));
    assert!(problems(&|c| c.cluster.heartbeat_timeout_ms = 1).contains("heartbeat_interval_ms"));
    assert!(problems(&|c| c.model.blocks.clear()).contains("the last block must be"));
    assert!(problems(&|c| c.model.image_size = 60_000).contains("values an image"));
}
