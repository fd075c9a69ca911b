;; Fills 100,000 elements of a table in one instruction, for ever.
;; expect: timed-out
;; limits: fuel=1T timeout=300ms

(table $t 100000 funcref)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (table.fill (i32.const 0) (ref.null func) (i32.const 100000)) (br $again)) unreachable)
