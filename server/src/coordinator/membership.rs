//! Who takes part: what a worker must have in common with the run, and who is a member.

use std::collections::BTreeMap;

use hw2_common::ids::WorkerId;
use hw2_common::job::{BUILD, PROTOCOL_VERSION};

use super::{Now, Refusal};

/// Members at one time; far above any cluster this is meant for.
pub(crate) const MEMBERS_MAX: usize = 4096;
/// Past members whose late contributions are still taken.
const PAST_MAX: usize = 4096;
/// Longest text that a worker may send about itself, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// What a worker says of itself when it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Introduction {
    pub(crate) protocol_version: u32,
    pub(crate) build: String,
    pub(crate) layout_fingerprint: String,
    pub(crate) config_fingerprint: String,
    pub(crate) dataset_fingerprint: String,
    pub(crate) numeric_kind: String,
    pub(crate) label: String,
}

/// What every worker of the run must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) layout_fingerprint: String,
    pub(crate) config_fingerprint: String,
    pub(crate) dataset_fingerprint: String,
    /// Of the worker whose result was the first to count; none before.
    pub(crate) numeric_kind: Option<String>,
    /// Take any numeric kind.
    pub(crate) allow_mixed: bool,
}

/// Checks what must be equal before anything else can be compared.
///
/// # Errors
/// Names what differs, with both values.
pub(crate) fn check_program(protocol_version: u32, build: &str) -> Result<(), Refusal> {
    if protocol_version != PROTOCOL_VERSION {
        return Err(Refusal::NotNow(format!(
            "the worker speaks protocol version {protocol_version}, the server {PROTOCOL_VERSION}: \
             run the same build on both"
        )));
    }
    check_text("build", build)?;
    match build == BUILD {
        true => Ok(()),
        false => Err(mismatch("build", build, BUILD)),
    }
}

impl Expected {
    /// Whether a worker may join.
    ///
    /// # Errors
    /// Names what differs, with both values.
    pub(crate) fn check(&self, worker: &Introduction) -> Result<(), Refusal> {
        check_program(worker.protocol_version, &worker.build)?;
        for (what, theirs, ours) in [
            ("layout fingerprint", &worker.layout_fingerprint, &self.layout_fingerprint),
            ("config fingerprint", &worker.config_fingerprint, &self.config_fingerprint),
            ("dataset fingerprint", &worker.dataset_fingerprint, &self.dataset_fingerprint),
        ] {
            check_text(what, theirs)?;
            if theirs != ours {
                return Err(mismatch(what, theirs, ours));
            }
        }
        check_text("numeric kind", &worker.numeric_kind)?;
        check_text("label", &worker.label)?;
        self.check_numeric_kind(&worker.numeric_kind)
    }

    /// Whether results of this kind may count.
    ///
    /// # Errors
    /// Names both kinds.
    pub(crate) fn check_numeric_kind(&self, theirs: &str) -> Result<(), Refusal> {
        match &self.numeric_kind {
            Some(ours) if theirs != ours && !self.allow_mixed => Err(Refusal::NotNow(format!(
                "{}; its results would not be those of the run (cluster.allow_mixed takes it all \
                 the same)",
                mismatch("numeric kind", theirs, ours).message()
            ))),
            _ => Ok(()),
        }
    }
}

fn mismatch(what: &str, theirs: &str, ours: &str) -> Refusal {
    Refusal::NotNow(format!("{what}: the worker has `{theirs}`, the run has `{ours}`"))
}

fn check_text(what: &str, text: &str) -> Result<(), Refusal> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        let bytes = text.len();
        return Err(Refusal::Invalid(format!(
            "{what} of {bytes} bytes: it must have 1 to {TEXT_BYTES_MAX}, none a control character"
        )));
    }
    Ok(())
}

/// A worker that takes part.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// For people: host, process id and device.
    pub(crate) label: String,
    /// When its last message came.
    pub(crate) seen: Now,
    /// What computes as it does.
    numeric_kind: String,
    /// When it last got work that it did not have, or finished some.
    pub(crate) progressed: Now,
    /// Whether it has asked what to do since it joined or since its leases were taken for slowness:
    /// only then it is given leases of its own accord.
    pub(crate) ready: bool,
    /// Contributions of it that counted.
    pub(crate) contributions: u64,
    /// When it was told to stop.
    pub(crate) stopped: Option<Now>,
}

/// All members of one term.
#[derive(Clone, Debug, Default)]
pub(crate) struct Members {
    issued: u64,
    members: BTreeMap<WorkerId, Member>,
    /// Numeric kinds of the newest of those that are gone.
    past: BTreeMap<WorkerId, String>,
}

impl Members {
    /// Takes a worker in under an id that was never used.
    ///
    /// # Errors
    /// [`Refusal::Full`] above [`MEMBERS_MAX`].
    pub(crate) fn join(
        &mut self,
        now: Now,
        label: String,
        numeric_kind: String,
    ) -> Result<WorkerId, Refusal> {
        if self.members.len() >= MEMBERS_MAX {
            return Err(Refusal::Full(format!("there are {MEMBERS_MAX} workers already")));
        }
        self.issued += 1;
        let worker = WorkerId(self.issued);
        let member = Member {
            label,
            numeric_kind,
            seen: now,
            progressed: now,
            ready: false,
            contributions: 0,
            stopped: None,
        };
        self.members.insert(worker, member);
        Ok(worker)
    }

    /// The numeric kind of a member, or of one that is gone but not long forgotten.
    pub(crate) fn numeric_kind(&self, worker: WorkerId) -> Option<&str> {
        let member = self.members.get(&worker).map(|member| &member.numeric_kind);
        member.or_else(|| self.past.get(&worker)).map(String::as_str)
    }

    pub(crate) fn get(&self, worker: WorkerId) -> Option<&Member> {
        self.members.get(&worker)
    }

    pub(crate) fn get_mut(&mut self, worker: WorkerId) -> Option<&mut Member> {
        self.members.get_mut(&worker)
    }

    pub(crate) fn remove(&mut self, worker: WorkerId) {
        if let Some(member) = self.members.remove(&worker) {
            self.past.insert(worker, member.numeric_kind);
        }
        if self.past.len() > PAST_MAX {
            self.past.pop_first();
        }
    }

    /// In the order in which they joined.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (WorkerId, &Member)> {
        self.members.iter().map(|(worker, member)| (*worker, member))
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A message of `worker` came; whether it is a member.
    pub(crate) fn saw(&mut self, now: Now, worker: WorkerId) -> bool {
        self.members.get_mut(&worker).map(|member| member.seen = now).is_some()
    }

    /// The server itself was not running for a while: that is nobody's silence.
    pub(crate) fn saw_all(&mut self, now: Now) {
        self.members.values_mut().for_each(|member| member.seen = now);
    }

    /// `worker` got work that it did not have, or finished some.
    pub(crate) fn progressed(&mut self, now: Now, worker: WorkerId) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.progressed = now;
        }
    }

    /// `worker (label)`, or just the id of one that is gone.
    pub(crate) fn name(&self, worker: WorkerId) -> String {
        match self.members.get(&worker) {
            Some(member) => format!("{worker} ({})", member.label),
            None => format!("{worker} (gone)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn introduction() -> Introduction {
        Introduction {
            protocol_version: PROTOCOL_VERSION,
            build: BUILD.into(),
            layout_fingerprint: "layout".into(),
            config_fingerprint: "config".into(),
            dataset_fingerprint: "dataset".into(),
            numeric_kind: "avx512".into(),
            label: "host:1 cpu".into(),
        }
    }

    fn expected() -> Expected {
        Expected {
            layout_fingerprint: "layout".into(),
            config_fingerprint: "config".into(),
            dataset_fingerprint: "dataset".into(),
            numeric_kind: None,
            allow_mixed: false,
        }
    }

    #[test]
    fn each_difference_is_refused_with_both_values() {
        type Change = fn(&mut Introduction);
        let cases: [(&str, &str, Change); 6] = [
            ("protocol version 99", "3", |i| i.protocol_version = 99),
            ("`hw2 9`", BUILD, |i| i.build = "hw2 9".into()),
            ("`other`", "`layout`", |i| i.layout_fingerprint = "other".into()),
            ("`other`", "`config`", |i| i.config_fingerprint = "other".into()),
            ("`other`", "`dataset`", |i| i.dataset_fingerprint = "other".into()),
            ("`neon`", "`avx512`", |i| i.numeric_kind = "neon".into()),
        ];
        for (theirs, ours, change) in cases {
            let expected = Expected { numeric_kind: Some("avx512".into()), ..expected() };
            let mut introduction = introduction();
            change(&mut introduction);
            let refusal = expected.check(&introduction).unwrap_err();
            let message = refusal.message();
            assert!(message.contains(theirs) && message.contains(ours), "{message}");
            assert!(matches!(refusal, Refusal::NotNow(_)));
        }
    }

    #[test]
    fn another_numeric_kind_is_refused_unless_mixing_is_allowed() {
        let mut expected = expected();
        expected.check(&introduction()).unwrap();
        expected.numeric_kind = Some("neon".into());
        expected.check(&introduction()).unwrap_err();
        expected.allow_mixed = true;
        expected.check(&introduction()).unwrap();
    }

    #[test]
    fn hostile_texts_are_invalid() {
        for text in ["", &"x".repeat(257), "two\nlines"] {
            let expected = expected();
            let hostile = Introduction { label: text.into(), ..introduction() };
            assert!(matches!(expected.check(&hostile), Err(Refusal::Invalid(_))), "{text}");
            let hostile = Introduction { numeric_kind: text.into(), ..introduction() };
            assert!(matches!(expected.check(&hostile), Err(Refusal::Invalid(_))), "{text}");
        }
    }

    #[test]
    fn an_id_is_never_used_twice() {
        let now = Now(Duration::ZERO);
        let mut members = Members::default();
        let first = members.join(now, "a".into(), "avx2".into()).unwrap();
        members.remove(first);
        let second = members.join(now, "b".into(), "neon".into()).unwrap();
        assert_ne!(first, second);
        let kinds = [first, second, WorkerId(0), WorkerId(3)].map(|it| members.numeric_kind(it));
        assert_eq!(kinds, [Some("avx2"), Some("neon"), None, None]);
        assert_eq!(members.name(first), "worker 1 (gone)");
        assert_eq!(members.name(second), "worker 2 (b)");
    }
}
