//! Workers that compute nothing but depend on every bit they get.

use hw2_common::address::Address;
use hw2_common::ids::{Assignment, BlockId, GlobalStep, ReplicaId};
use hw2_common::job::{BUILD, Job, PROTOCOL_VERSION};
use hw2_common::layout::ParamLayout;
use hw2_common::rng::philox4x32;
use hw2_common::shard::Shard;
use hw2_common::wire::{Assembly, Cut};
use hw2_proto::v1::control_client::ControlClient;
use hw2_proto::v1::data_client::DataClient;
use hw2_proto::v1::pull_message::Message as Pulled;
use hw2_proto::v1::push_message::Message as Pushed;
use hw2_proto::v1::{self, pull_request};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::fake::{chunks, connect, control, introduction, weights};

/// A joined worker. Its gradients are a function of (weights, step, replica), its counts one of
/// (EMA, running statistics, block), so any wrong bit that it is given shows in the result.
pub(crate) struct Worker {
    pub(crate) control: ControlClient<Channel>,
    pub(crate) data: DataClient<Channel>,
    /// To the followers, in their order.
    followers: Vec<DataClient<Channel>>,
    pub(crate) job: Job,
    pub(crate) layout: ParamLayout,
    pub(crate) term: u64,
    pub(crate) worker: u64,
    pub(crate) weights: (Option<u64>, Vec<f32>),
    pub(crate) ema: (Option<u64>, Vec<f32>),
    pub(crate) buffers: Vec<f32>,
}

impl Worker {
    pub(crate) async fn join(address: &Address) -> Result<Self, Status> {
        Self::join_all(std::slice::from_ref(address)).await
    }

    /// Of a run on several servers.
    pub(crate) async fn join_all(addresses: &[Address]) -> Result<Self, Status> {
        let mut control = control(&addresses[0]).await;
        let hello = v1::HelloRequest { protocol_version: PROTOCOL_VERSION, build: BUILD.into() };
        let reply = control.hello(hello.clone()).await?.into_inner();
        let mut followers = Vec::new();
        for (shard, address) in (1..).zip(&addresses[1..]) {
            let channel = connect(address).await;
            let mut control = ControlClient::new(channel.clone());
            let other = control.hello(hello.clone()).await?.into_inner();
            assert_eq!((other.shard, other.shards as usize), (shard, addresses.len()));
            if other.term != reply.term {
                return Err(Status::aborted("not in the coordinator's term"));
            }
            followers.push(DataClient::new(channel));
        }
        let job: Job = serde_json::from_str(&reply.job_json).unwrap();
        let layout = job.layout().unwrap();
        let join = introduction(reply.term, &job);
        let worker = control.join(join).await?.into_inner().worker;
        Ok(Self {
            weights: (None, vec![0.0; layout.params.len()]),
            ema: (None, vec![0.0; layout.params.len()]),
            buffers: vec![0.0; layout.buffers.len()],
            term: reply.term,
            control,
            data: DataClient::new(connect(&addresses[0]).await),
            followers,
            job,
            layout,
            worker,
        })
    }

    /// What a server has of the parameters.
    fn cut(&self, index: usize) -> Cut {
        let shard = Shard { index, count: 1 + self.followers.len() };
        Cut::params(&self.layout, self.job.config.wire, shard.count).shard(shard).unwrap()
    }

    /// Asks what to do; what the directive needs is then held.
    pub(crate) async fn pull(&mut self) -> Result<v1::directive::Directive, Status> {
        loop {
            let directive = self.next(None).await?;
            let is_there = match &directive {
                v1::directive::Directive::Run(run) => self.fetch(weights(run.step)).await?,
                v1::directive::Directive::Evaluate(evaluate) => {
                    self.fetch(pull_request::Version::EmaStep(evaluate.step)).await?
                }
                _ => true,
            };
            if is_there {
                return Ok(directive);
            }
        }
    }

    /// Asks what to do, once what it is `pushing` is in.
    pub(crate) async fn next(
        &mut self,
        pushing: Option<v1::Pushing>,
    ) -> Result<v1::directive::Directive, Status> {
        let request = v1::NextRequest { term: self.term, worker: self.worker, pushing };
        Ok(self.control.next(request).await?.into_inner().directive.unwrap())
    }

    /// Holds `version` afterwards; false if there is none such any more.
    async fn fetch(&mut self, version: pull_request::Version) -> Result<bool, Status> {
        let held = match version {
            pull_request::Version::WeightsStep(step) => self.weights.0 == Some(step),
            pull_request::Version::EmaStep(step) => self.ema.0 == Some(step),
        };
        if held {
            return Ok(true);
        }
        let (mut all, mut is_there) = (Vec::new(), true);
        for shard in 0..=self.followers.len() {
            let params = self.fetch_from(shard, version).await?;
            is_there &= params.is_some();
            all.extend(params.into_iter().flatten());
        }
        match version {
            _ if !is_there => {}
            pull_request::Version::WeightsStep(step) => self.weights = (Some(step), all),
            pull_request::Version::EmaStep(step) => self.ema = (Some(step), all),
        }
        Ok(is_there)
    }

    /// The parameters that one server has, and all buffers from the first.
    async fn fetch_from(
        &mut self,
        shard: usize,
        version: pull_request::Version,
    ) -> Result<Option<Vec<f32>>, Status> {
        let wire = self.job.config.wire;
        let vector = |cut: Cut| {
            let room = vec![f32::NAN; cut.values().len()];
            Assembly::new(cut, wire, room)
        };
        let mut params = vector(self.cut(shard));
        let mut buffers = vector(Cut::whole(self.layout.buffers.len()));
        let request = v1::PullRequest { term: self.term, version: Some(version) };
        let mut stream = self.server(shard).pull(request).await?.into_inner();
        while let Some(message) = stream.message().await? {
            match message.message.unwrap() {
                Pulled::Chunk(chunk) => match chunk.kind() {
                    v1::VectorKind::Buffers => buffers.add(&chunk).unwrap(),
                    v1::VectorKind::Weights | v1::VectorKind::Ema => params.add(&chunk).unwrap(),
                    kind => panic!("{kind:?} in a pull"),
                },
                Pulled::Withdrawn(v1::Withdrawn {}) => return Ok(None),
                Pulled::Committed(v1::Committed {}) => {
                    if matches!(version, pull_request::Version::EmaStep(_)) && shard == 0 {
                        self.buffers = buffers.finish().unwrap();
                    }
                    return Ok(Some(params.finish().unwrap()));
                }
            }
        }
        panic!("a pull that just ends");
    }

    fn server(&mut self, shard: usize) -> &mut DataClient<Channel> {
        match shard {
            0 => &mut self.data,
            _ => &mut self.followers[shard - 1],
        }
    }

    pub(crate) async fn begin_pull(
        &mut self,
        version: pull_request::Version,
    ) -> Result<Streaming<v1::PullMessage>, Status> {
        let request = v1::PullRequest { term: self.term, version: Some(version) };
        Ok(self.data.pull(request).await?.into_inner())
    }

    /// (gradient, statistics, result) of an assignment.
    pub(crate) fn compute(&self, assignment: Assignment) -> (Vec<f32>, Vec<f32>, v1::StepResult) {
        assert_eq!(self.weights.0, Some(assignment.step.0), "the weights of this step");
        let key = [assignment.step.0 as u32, assignment.replica.0];
        let noise = |i: usize| philox4x32([i as u32, 0, 0, 0], key)[0] as f32 / 4e9 - 0.5;
        let weights = self.weights.1.iter().enumerate();
        let gradient: Vec<f32> = weights.map(|(i, weight)| 0.3 * weight + noise(i)).collect();
        let statistics = (0..self.layout.buffers.len()).map(|i| noise(i) + 1.0).collect();
        let loss = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let samples = self.job.config.batch_size;
        let top1 = philox4x32([7; 4], key)[0] % (samples + 1);
        let result = v1::StepResult { loss, samples, top1, bad_images: Vec::new() };
        (gradient, statistics, result)
    }

    /// The messages of a push to the first server.
    pub(crate) fn messages(&self, assignment: Assignment) -> Vec<v1::PushMessage> {
        self.messages_to(0, assignment)
    }

    pub(crate) fn messages_to(&self, shard: usize, assignment: Assignment) -> Vec<v1::PushMessage> {
        let (gradient, statistics, result) = self.compute(assignment);
        let head = Pushed::Head(v1::PushHead {
            term: self.term,
            worker: self.worker,
            step: assignment.step.0,
            replica: assignment.replica.0,
        });
        let cut = self.cut(shard);
        let gradient = cut.ranges().iter().flat_map(|range| {
            chunks(v1::VectorKind::Gradient, range.start, gradient[range.clone()].to_vec())
        });
        let rest = chunks(v1::VectorKind::BatchStatistics, 0, statistics).map(Pushed::Chunk);
        let rest = rest.chain([Pushed::Result(result)]).filter(|_| shard == 0);
        let all = [head].into_iter().chain(gradient.map(Pushed::Chunk)).chain(rest);
        all.map(|message| v1::PushMessage { message: Some(message) }).collect()
    }

    pub(crate) async fn push(
        &mut self,
        assignment: Assignment,
    ) -> Result<v1::push_reply::Outcome, Status> {
        for shard in 1..=self.followers.len() {
            self.push_to(shard, self.messages_to(shard, assignment)).await?;
        }
        self.push_messages(self.messages(assignment)).await
    }

    pub(crate) async fn push_messages(
        &mut self,
        messages: Vec<v1::PushMessage>,
    ) -> Result<v1::push_reply::Outcome, Status> {
        self.push_to(0, messages).await
    }

    pub(crate) async fn push_to(
        &mut self,
        shard: usize,
        messages: Vec<v1::PushMessage>,
    ) -> Result<v1::push_reply::Outcome, Status> {
        let reply = self.server(shard).push(tokio_stream::iter(messages)).await?;
        Ok(reply.into_inner().outcome())
    }

    pub(crate) fn counts(&self, step: GlobalStep, block: BlockId) -> v1::EvaluationReport {
        assert_eq!(self.ema.0, Some(step.0), "the EMA of this step");
        let samples = self.job.eval_range(block).len() as u32;
        let bits = self.ema.1.iter().chain(&self.buffers).map(|value| value.to_bits());
        let hash = bits.fold(block.0, |hash, bits| philox4x32([hash, bits, 0, 0], [3, 4])[0]);
        let top1 = hash % (samples + 1);
        v1::EvaluationReport {
            term: self.term,
            worker: self.worker,
            step: step.0,
            block: block.0,
            samples,
            top1,
            top5: samples,
            loss_sum: f64::from(hash) * 1e-9,
            bad_images: Vec::new(),
        }
    }

    /// Does what a directive says; false when it says to stop.
    pub(crate) async fn obey(
        &mut self,
        directive: v1::directive::Directive,
    ) -> Result<bool, Status> {
        use v1::directive::Directive;
        match directive {
            Directive::Run(run) => {
                for leased in run.assignments {
                    let step = GlobalStep(run.step);
                    let assignment = Assignment { step, replica: ReplicaId(leased.replica) };
                    if leased.credit || self.await_credit(assignment).await? {
                        self.push(assignment).await?;
                    }
                }
            }
            Directive::Evaluate(evaluate) => {
                for block in evaluate.blocks {
                    let report = self.counts(GlobalStep(evaluate.step), BlockId(block));
                    self.control.report_evaluation(report).await?;
                }
            }
            Directive::Wait(_) => {}
            Directive::Rejoin(rejoin) => return Err(Status::aborted(rejoin.reason)),
            Directive::Stop(_) => return Ok(false),
        }
        Ok(true)
    }

    async fn await_credit(&mut self, assignment: Assignment) -> Result<bool, Status> {
        loop {
            let request = v1::CreditRequest {
                term: self.term,
                worker: self.worker,
                step: assignment.step.0,
                replica: assignment.replica.0,
                computing: false,
            };
            match self.control.credit(request).await?.into_inner().answer() {
                v1::credit_reply::Answer::Wait => {}
                v1::credit_reply::Answer::Push => return Ok(true),
                v1::credit_reply::Answer::Drop => return Ok(false),
            }
        }
    }

    /// Works until it is told to stop.
    pub(crate) async fn work(&mut self) -> Result<(), Status> {
        loop {
            let directive = self.pull().await?;
            if !self.obey(directive).await? {
                return Ok(());
            }
        }
    }

    pub(crate) async fn leave(&mut self) {
        let (term, worker) = (self.term, self.worker);
        let request = v1::LeaveRequest { term, worker, reason: "told to stop".into() };
        self.control.leave(request).await.unwrap();
    }

    pub(crate) async fn status(&mut self) -> v1::StatusReply {
        self.control.status(v1::StatusRequest {}).await.unwrap().into_inner()
    }
}
