;; Matches `(a+)+b` against forty letters `a`, as a careless regular expression does.
;; expect: out-of-fuel
;; limits: fuel=20M

(func $matches (param $from i32) (result i32)
  (local $to i32)
  ;; The subject has no `b`: each way to cut the rest into groups is tried.
  (local.set $to (local.get $from))
  (loop $longer
    (if (i32.lt_u (local.get $to) (i32.const 40)) (then
      (local.set $to (i32.add (local.get $to) (i32.const 1)))
      (if (call $matches (local.get $to)) (then (return (i32.const 1))))
      (br $longer))))
  (i32.const 0))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (drop (call $matches (i32.const 0)))
  (i32.const 1024))
