//! Flags that make a job's config, alike for every command that has one.

use std::path::{Path, PathBuf};

use clap::Args;
use hw2_common::config::{ConfigError, Flag, Layers, Resolved, Source, environment, parse_setting};

use hw2_server::CONFIG_FILE;

/// The layers of a config: file, profile, flags (and HW2_* variables in between).
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct JobArgs {
    /// Config file (TOML); `hw2 config` prints every key
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Lays the file's [profile.NAME] over it
    #[arg(long, value_name = "NAME")]
    pub(crate) profile: Option<String>,

    /// Dataset folder (train/ and val/ with class folders) or a tar of one [key: data]
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<String>,

    /// Folder for checkpoints, curve and logs [key: run_dir]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<String>,

    /// Logical slices of the global batch [key: replicas]
    #[arg(long, value_name = "N")]
    pub(crate) replicas: Option<String>,

    /// Images of one replica's micro-batch [key: batch_size]
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<String>,

    /// Steps at which training ends [key: max_steps]
    #[arg(long, value_name = "N")]
    pub(crate) steps: Option<String>,

    /// Of every random number [key: seed]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<String>,

    /// Compute threads of one CPU worker [key: threads]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<String>,

    /// Sets any config key, as in model.image_size=64; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    pub(crate) set: Vec<(String, String)>,
}

impl JobArgs {
    /// The layers, the environment of this process among them.
    pub(crate) fn layers(&self) -> Layers {
        Layers {
            file: self.config.clone(),
            profile: self.profile.clone(),
            environment: environment(),
            flags: self.flags(),
        }
    }

    /// As [`Self::layers`]; a run that goes on has its own config for a file unless one is given.
    ///
    /// # Errors
    /// The layers make no config.
    pub(crate) fn resume_layers(&self) -> Result<Layers, ConfigError> {
        let layers = self.layers();
        if layers.file.is_some() {
            return Ok(layers);
        }
        // A profile is part of the file that is looked for here.
        let found = Layers { profile: None, ..layers.clone() }.load()?;
        let file = Path::new(&found.config.run_dir).join(CONFIG_FILE);
        Ok(Layers { file: file.exists().then_some(file), ..layers })
    }

    fn flags(&self) -> Vec<Flag> {
        let named = [
            ("--data", "data", &self.data),
            ("--out", "run_dir", &self.out),
            ("--replicas", "replicas", &self.replicas),
            ("--batch", "batch_size", &self.batch),
            ("--steps", "max_steps", &self.steps),
            ("--seed", "seed", &self.seed),
            ("--threads", "threads", &self.threads),
        ];
        Flag::given(&self.set, &named)
    }
}

/// Makes `replicas` the number of workers where nobody said how many there are.
///
/// Returns the config, and whether that happened.
///
/// # Errors
/// The layers make no config.
pub(crate) fn load_for(workers: usize, layers: Layers) -> Result<(Resolved, bool), ConfigError> {
    let resolved = layers.load()?;
    if workers == 1 || *resolved.source("replicas") != Source::Default {
        return Ok((resolved, false));
    }
    let mut layers = layers;
    layers.flags.push(Flag {
        name: "--workers".into(),
        key: "replicas".into(),
        value: workers.to_string(),
    });
    Ok((layers.load()?, true))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        job: JobArgs,
    }

    fn layers(line: &str) -> Layers {
        let job = Line::try_parse_from(line.split(' ')).unwrap().job;
        // The environment of a test run is none of the test's business.
        Layers { environment: Vec::new(), ..job.layers() }
    }

    #[test]
    fn every_flag_sets_its_key() {
        let line = "hw2 --data d --out o --replicas 2 --batch 3 --steps 4 --seed 5 --threads 6 \
                    --set optimizer.learning_rate=0.5";
        let config = layers(line).load().unwrap().config;
        assert_eq!((config.data.as_str(), config.run_dir.as_str()), ("d", "o"));
        assert_eq!((config.replicas, config.batch_size, config.max_steps), (2, 3, 4));
        assert_eq!((config.seed, config.threads), (5, 6));
        assert_eq!(config.optimizer.learning_rate, 0.5);
    }

    #[test]
    fn a_wrong_value_is_named_with_the_flag_it_came_from() {
        let error = layers("hw2 --batch 0").load().unwrap_err().to_string();
        assert!(error.contains("--batch") && error.contains("batch_size = 0"), "{error}");
        assert!(Line::try_parse_from(["hw2", "--set", "seed"]).is_err());
        assert!(Line::try_parse_from(["hw2", "--set", "=1"]).is_err());
    }

    #[test]
    fn replicas_follow_the_workers_only_where_nobody_gave_them() {
        let replicas = |workers, line| {
            let (resolved, followed) = load_for(workers, layers(line)).unwrap();
            (resolved.config.replicas, followed)
        };
        assert_eq!(replicas(3, "hw2"), (3, true));
        assert_eq!(replicas(1, "hw2"), (1, false));
        assert_eq!(replicas(3, "hw2 --replicas 1"), (1, false));
        assert_eq!(replicas(3, "hw2 --set replicas=4"), (4, false));
    }

    #[test]
    fn a_run_that_goes_on_has_its_own_config() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().to_str().unwrap();
        let job = JobArgs { out: Some(out.into()), ..JobArgs::default() };
        assert_eq!(job.resume_layers().unwrap().file, None, "there is none yet");
        let file = dir.path().join(CONFIG_FILE);
        std::fs::write(&file, "seed = 7\n").unwrap();
        assert_eq!(job.resume_layers().unwrap().file, Some(file));
        let given = JobArgs { config: Some("mine.toml".into()), ..job };
        assert_eq!(given.resume_layers().unwrap().file, Some("mine.toml".into()));
    }

    #[test]
    fn the_configs_that_come_along_are_valid() {
        for name in ["demo", "original", "glyphs"] {
            let file = format!("{}/configs/{name}.toml", env!("CARGO_MANIFEST_DIR"));
            let layers = Layers { file: Some(file.into()), ..Layers::default() };
            layers.load().unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}
