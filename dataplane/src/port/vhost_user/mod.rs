//! Ports of virtual machines, by vhost-user.

mod notify;
