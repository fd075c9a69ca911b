;; Loops for ever after it has returned, where it is told that its result was read.
;; expect: out-of-fuel
;; limits: fuel=20M

(func (export "cabi_post_flowstone:asset/materializer@0.1.0#materialize") (param i32)
  (loop $again (br $again)))
