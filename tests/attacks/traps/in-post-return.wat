;; Traps after it has returned.
;; expect: trapped
;; says: unreachable

(func (export "cabi_post_flowstone:asset/materializer@0.1.0#materialize") (param i32)
  unreachable)
