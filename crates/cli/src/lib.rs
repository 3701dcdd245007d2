//! Commands for people. They reach a cluster by kubeconfig only and work against any Kubernetes cluster.

#![forbid(unsafe_code)]

pub mod check;
