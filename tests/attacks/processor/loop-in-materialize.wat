;; Loops for ever where it is asked to make its asset.
;; expect: out-of-fuel
;; says: it used all of its 20000000 units of fuel
;; limits: fuel=20M

(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (br $again)) unreachable)
