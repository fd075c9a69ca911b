;; Asks for the network again and again, and drops none.
;; expect: trapped
;; says: resource table

(import "wasi:sockets/instance-network@0.2.12" "instance-network" (func $instance_network (result i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (drop (call $instance_network)) (br $again)) unreachable)
